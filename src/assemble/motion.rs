//! Motion modules, adapters and MotionLoRAs from their files, and which architecture a module has.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::AssembleError;
use crate::{
    diffusion,
    model::unet::{
        self,
        motion::{self, AttentionType, feed_forward_norm},
    },
    weights::{Lora, NamedTensors, Table, WeightFile, formats, read},
};

/// The metadata key under which exports keep their `unet_additional_kwargs`, as JSON.
pub const ARCHITECTURE_KEY: &str = "animatediff.unet_additional_kwargs";

/// The metadata key under which exports keep the noise schedule that they were trained on, as JSON.
pub const SCHEDULE_KEY: &str = "animatediff.noise_scheduler_kwargs";

/// A motion module: its architecture, its schedule, and its tensors in our names.
pub struct Motion {
    /// Architecture.
    pub config: motion::Config,
    /// The noise schedule it was trained on, which is the one to sample it with; the official one where a file has none.
    pub noise_scheduler_kwargs: diffusion::Config,
    /// Tensors; empty for a module that will be trained from the start.
    pub tensors: NamedTensors,
}

/// The official inference YAML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InferenceConfig {
    /// The motion module's architecture; absent means what the weights say.
    pub unet_additional_kwargs: Option<motion::Config>,
    /// The noise schedule; absent means the one the motion module was trained on.
    pub noise_scheduler_kwargs: Option<diffusion::Config>,
}

impl Motion {
    /// A new module, to be trained.
    pub fn fresh(config: motion::Config) -> Motion {
        Motion { config, noise_scheduler_kwargs: diffusion::Config::default(), tensors: NamedTensors::new() }
    }

    /// Reads a module in the official names. Its architecture is `config`, or what its metadata or its keys say.
    pub fn read(path: &Path, config: Option<motion::Config>) -> Result<Motion, AssembleError> {
        let WeightFile { tensors, metadata } = read(path)?;
        let mut tensors = formats::unwrapped().import(tensors, |_| String::new())?;
        // Official checkpoints may hold the whole UNet; as in the official loader, only its motion modules are taken.
        if tensors.names().any(|name| name.contains(".motion_modules.")) {
            tensors.retain(|name| name.contains("motion_modules."));
        }
        let detected = from_metadata(&metadata, ARCHITECTURE_KEY, path)?.unwrap_or_else(|| detect(&tensors));
        let noise_scheduler_kwargs: diffusion::Config =
            from_metadata(&metadata, SCHEDULE_KEY, path)?.unwrap_or_default();
        noise_scheduler_kwargs.check(1).map_err(|(key, message)| AssembleError::Config {
            path: path.to_owned(),
            reason: format!("its metadata `{SCHEDULE_KEY}`: `{key}`: {message}"),
        })?;
        let config = config.unwrap_or(detected);
        if config.use_motion_module && !config.motion_module_mid_block && has_mid_block(&tensors) {
            return Err(AssembleError::MidBlock(path.to_owned()));
        }
        let attentions = formats::attention_blocks(&tensors);
        let table = formats::motion_module(attentions, feed_forward_norm(attentions));
        let tensors = table.import(tensors, formats::looks_like("a motion module"))?;
        Ok(Motion { config, noise_scheduler_kwargs, tensors })
    }

    /// The file it was read from.
    pub(super) fn origin(&self) -> Option<String> {
        self.tensors.names().next().and_then(|name| self.tensors.origin_of(name))
    }
}

/// What a file's metadata says under `key`, as JSON.
fn from_metadata<T: DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    path: &Path,
) -> Result<Option<T>, AssembleError> {
    let wrong = |error| AssembleError::Config {
        path: path.to_owned(),
        reason: format!("its metadata `{key}` cannot be read: {error}"),
    };
    metadata.get(key).map(|json| serde_json::from_str(json).map_err(wrong)).transpose()
}

/// The architecture that a file's keys show (v1, v2 or v3), where neither metadata nor the user says.
fn detect(tensors: &NamedTensors) -> motion::Config {
    let positions = tensors.names().find(|name| name.ends_with("pos_encoder.pe")).and_then(|name| tensors.shape(name));
    let mut config = match (has_mid_block(tensors), positions.as_deref()) {
        (true, _) => motion::Config::v2(),
        (false, Some([_, 24, _])) => motion::Config::v1(),
        (false, _) => motion::Config::v3(),
    };
    let module = &mut config.motion_module_kwargs;
    if let Some([_, length, _]) = positions.as_deref() {
        module.temporal_position_encoding_max_len = *length;
    }
    module.attention_block_types = vec![AttentionType::SelfAttention; formats::attention_blocks(tensors)];
    config
}

fn has_mid_block(tensors: &NamedTensors) -> bool {
    tensors.names().any(|name| name.starts_with("mid_block."))
}

/// Heads, groups and widths must divide.
pub(super) fn check_fit(motion: &motion::Config, unet: &unet::Config) -> Result<(), AssembleError> {
    let module = &motion.motion_module_kwargs;
    let divisor = module.num_attention_heads * module.temporal_attention_dim_div;
    if divisor <= 0 {
        return Err(AssembleError::Motion(
            "num_attention_heads and temporal_attention_dim_div must be at least 1".into(),
        ));
    }
    match unet.block_out_channels.iter().find(|&&channels| channels % divisor != 0) {
        Some(channels) => Err(AssembleError::Motion(format!(
            "{channels} channels are not divisible by num_attention_heads · temporal_attention_dim_div = {divisor}"
        ))),
        None if module.attention_block_types.is_empty() || module.num_transformer_block < 1 => {
            Err(AssembleError::Motion("a module needs at least one transformer block with one attention".into()))
        }
        None => Ok(()),
    }
}

/// Reads a domain adapter in the official names.
pub fn read_adapter(path: &Path) -> Result<Lora, AssembleError> {
    lora_from(read(path)?, path, &formats::adapter(), "a domain adapter")
}

/// Reads a MotionLoRA in the official names.
pub fn read_motion_lora(path: &Path) -> Result<Lora, AssembleError> {
    let file = read(path)?;
    let attentions = formats::attention_blocks(&file.tensors).max(2);
    lora_from(file, path, &formats::motion_lora(attentions), "a MotionLoRA")
}

fn lora_from(file: WeightFile, path: &Path, table: &Table, kind: &str) -> Result<Lora, AssembleError> {
    let tensors = table.import(file.tensors, formats::looks_like(kind))?;
    Ok(Lora::from_tensors(tensors, &path.display().to_string())?)
}
