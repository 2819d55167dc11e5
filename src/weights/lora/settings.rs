//! What PEFT and diffusers say of pairs beside them: alpha, which their names have no place for.
//!
//! diffusers keeps it in the metadata of the file, for each network under its prefix; PEFT in `adapter_config.json`.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};

use crate::weights::{error::WeightsError, read::ADAPTER_CONFIG};

/// diffusers' key.
const METADATA: &str = "lora_adapter_metadata";

/// The configuration of a file's pairs.
pub struct Settings {
    values: Map<String, Value>,
    /// Whether its keys begin with the network's name.
    prefixed: bool,
}

impl Settings {
    /// Takes the configuration out of `metadata`, for once it is applied it no longer holds.
    pub fn take(metadata: &mut BTreeMap<String, String>, path: &Path) -> Result<Option<Settings>, WeightsError> {
        let of_peft = metadata.remove(ADAPTER_CONFIG);
        let of_diffusers = metadata.remove(METADATA);
        let prefixed = of_diffusers.is_some();
        let Some(text) = of_diffusers.or(of_peft) else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(values) => Ok(Some(Settings { values, prefixed })),
            Err(error) => Err(WeightsError::LoraSettings { path: path.to_owned(), reason: error.to_string() }),
        }
    }

    /// What multiplies the pair of a layer: alpha over rank, or over its root where that was asked for.
    pub fn scale(&self, network: &str, layer: &str, rank: i64) -> Option<f64> {
        let network = if self.prefixed { network } else { "" };
        let value = |key: &str| self.values.get(&format!("{network}{key}"));
        let special = value("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let fits = |pattern: &str| layer == pattern || layer.ends_with(&format!(".{pattern}"));
            patterns.iter().find(|(pattern, _)| fits(pattern)).map(|(_, alpha)| alpha)
        });
        let alpha = special.or_else(|| value("lora_alpha"))?.as_f64()?;
        let rank = rank as f64;
        let root = value("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(if root { alpha / rank.sqrt() } else { alpha / rank })
    }
}
