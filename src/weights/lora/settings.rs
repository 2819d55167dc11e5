//! What PEFT and diffusers say of pairs beside them: alpha, which their names have no place for.
//!
//! diffusers keeps it in the metadata of the file, for each network under its prefix; PEFT in `adapter_config.json`.

use std::{collections::BTreeMap, path::Path};

use regex::{Regex, RegexBuilder};
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
        let wrong = |reason: String| WeightsError::LoraSettings { path: path.to_owned(), reason };
        let values: Map<String, Value> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let settings = Settings { values, prefixed };
        settings.check().map_err(wrong)?;
        Ok(Some(settings))
    }

    /// Refuses what would silently be something else.
    fn check(&self) -> Result<(), String> {
        for network in if self.prefixed { &["unet.", "text_encoder."][..] } else { &[""] } {
            let value = |key: &str| self.values.get(&format!("{network}{key}")).filter(|value| !value.is_null());
            if value("use_dora").is_some_and(|dora| *dora != Value::Bool(false)) {
                return Err(format!("`{network}use_dora`: DoRA is not supported; LoRA, LoCon, LoHa and LoKr are"));
            }
            if let Some(alpha) = value("lora_alpha").filter(|alpha| !alpha.is_number()) {
                return Err(format!("`{network}lora_alpha: {alpha}`: a number is expected"));
            }
            for (pattern, alpha) in value("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
                if !alpha.is_number() || expression(pattern).is_err() {
                    return Err(format!(
                        "`{network}alpha_pattern`: `{pattern}: {alpha}`: an expression and a number are expected"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What multiplies the pair of a layer: alpha over rank, or over its root where that was asked for.
    pub fn scale(&self, network: &str, layer: &str, rank: i64) -> Option<f64> {
        let network = if self.prefixed { network } else { "" };
        let value = |key: &str| self.values.get(&format!("{network}{key}"));
        let special = value("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let fits = |pattern: &str| expression(pattern).is_ok_and(|expression| expression.is_match(layer));
            patterns.iter().find(|(pattern, _)| fits(pattern)).map(|(_, alpha)| alpha)
        });
        let alpha = special.or_else(|| value("lora_alpha"))?.as_f64()?;
        let rank = rank as f64;
        let root = value("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(if root { alpha / rank.sqrt() } else { alpha / rank })
    }
}

/// A pattern of PEFT's: a regular expression for the end of a path, at the start of a part.
fn expression(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$")).size_limit(1 << 20).build()
}
