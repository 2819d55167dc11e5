//! Motion modules, adapters and MotionLoRAs from their files, whatever their names, and which architecture a module has.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::AssembleError;
use crate::{
    diffusion, hub,
    model::unet::{
        self,
        motion::{self, AttentionType},
    },
    weights::{Content, Identified, Lora, LoraFile, LowRankUse, NamedTensors},
};

/// The metadata key under which exports keep their `unet_additional_kwargs`, as JSON.
pub const ARCHITECTURE_KEY: &str = "animatediff.unet_additional_kwargs";

/// The metadata key of the groups that the norms of a motion module's base have.
pub const GROUPS_KEY: &str = "animatediff.norm_num_groups";

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

    /// Reads a module in whatever names. Its architecture is `config`, or what its metadata, its configuration or its keys say.
    pub fn read(path: &Path, config: Option<motion::Config>) -> Result<Motion, AssembleError> {
        let local = hub::local(path).map_err(AssembleError::Hub)?;
        let mut motion = Motion::of(Identified::read(&local)?, &local)?;
        if let Some(config) = config {
            if config.use_motion_module && !config.motion_module_mid_block && has_mid_block(&motion.tensors) {
                return Err(AssembleError::MidBlock(path.to_owned()));
            }
            motion.config = config;
        }
        Ok(motion)
    }

    /// The module in a file that is identified, at `path`.
    pub fn of(file: Identified, path: &Path) -> Result<Motion, AssembleError> {
        let metadata = &file.metadata;
        let detected = match (from_metadata(metadata, ARCHITECTURE_KEY, path)?, adapter_config(path)?) {
            (Some(told), _) => told,
            (None, Some(adapter)) => adapter.architecture(&file),
            (None, None) => detect(&file),
        };
        let noise_scheduler_kwargs: diffusion::Config =
            from_metadata(metadata, SCHEDULE_KEY, path)?.unwrap_or_default();
        noise_scheduler_kwargs.check(1).map_err(|(key, message)| AssembleError::Config {
            path: path.to_owned(),
            reason: format!("its metadata `{SCHEDULE_KEY}`: `{key}`: {message}"),
        })?;
        let tensors = file.import(Content::MotionModule)?;
        Ok(Motion { config: detected, noise_scheduler_kwargs, tensors })
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
fn detect(file: &Identified) -> motion::Config {
    let tensors = &file.tensors;
    let tables = ["pos_encoder.pe", "pos_embed.pe"];
    let table = tensors.names().find(|name| tables.iter().any(|table| name.ends_with(table)));
    let positions = table.and_then(|name| tensors.shape(name));
    let mut config = match (has_mid_block(tensors), positions.as_deref()) {
        (true, _) => motion::Config::v2(),
        (false, Some([_, 24, _])) => motion::Config::v1(),
        (false, _) => motion::Config::v3(),
    };
    let module = &mut config.motion_module_kwargs;
    if let Some([_, length, _]) = positions.as_deref() {
        module.temporal_position_encoding_max_len = *length;
    }
    module.attention_block_types = vec![AttentionType::SelfAttention; file.topology.attentions];
    config
}

/// `config.json` of diffusers' MotionAdapter, as far as it says something that weights do not.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    #[serde(default = "AdapterConfig::default_length")]
    motion_max_seq_length: i64,
    #[serde(default = "AdapterConfig::default_heads")]
    motion_num_attention_heads: i64,
}

impl AdapterConfig {
    fn default_length() -> i64 {
        32
    }

    fn default_heads() -> i64 {
        8
    }

    fn architecture(&self, file: &Identified) -> motion::Config {
        let mut config = match (has_mid_block(&file.tensors), self.motion_max_seq_length) {
            (true, _) => motion::Config::v2(),
            (false, 24) => motion::Config::v1(),
            (false, _) => motion::Config::v3(),
        };
        let module = &mut config.motion_module_kwargs;
        module.temporal_position_encoding_max_len = self.motion_max_seq_length;
        module.num_attention_heads = self.motion_num_attention_heads;
        module.attention_block_types = vec![AttentionType::SelfAttention; file.topology.attentions];
        config
    }
}

/// The configuration that lies with the weights at `path`, if it is a MotionAdapter's.
fn adapter_config(path: &Path) -> Result<Option<AdapterConfig>, AssembleError> {
    let beside = if path.is_dir() { path.join("config.json") } else { path.with_file_name("config.json") };
    let Ok(text) = std::fs::read_to_string(&beside) else { return Ok(None) };
    let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(None) };
    if json.get("_class_name").and_then(|name| name.as_str()) != Some("MotionAdapter") {
        return Ok(None);
    }
    let wrong = |error| AssembleError::Config { path: beside, reason: format!("not a MotionAdapter's: {error}") };
    serde_path_to_error::deserialize::<_, AdapterConfig>(json).map(Some).map_err(wrong)
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

/// Reads a domain adapter: low-rank pairs on the image UNet, in whatever names.
pub fn read_adapter(path: &Path) -> Result<Lora, AssembleError> {
    let file = Identified::read(path)?;
    match file.low_rank_use() {
        Some(LowRankUse::Adapter | LowRankUse::Image) => {}
        _ => return Err(file.other_than("a domain adapter").into()),
    }
    let error = file.other_than("a domain adapter, which is for the UNet alone,");
    let lora = LoraFile::of(file, path)?;
    if lora.text_encoder.is_empty() { Ok(lora.unet) } else { Err(error.into()) }
}

/// Reads a MotionLoRA: low-rank pairs on the motion module, in whatever names.
pub fn read_motion_lora(path: &Path) -> Result<Lora, AssembleError> {
    let file = Identified::read(path)?;
    match file.low_rank_use() {
        Some(LowRankUse::MotionLora) => Ok(LoraFile::of(file, path)?.unet),
        _ => Err(file.other_than("a MotionLoRA").into()),
    }
}

/// Reads a LoRA on the UNet, the text encoder or both, in whatever names; `ignore_alpha` reads it as the official loader does.
pub fn read_lora(path: &Path, ignore_alpha: bool) -> Result<LoraFile, AssembleError> {
    let file = Identified::read(path)?;
    if file.low_rank_use().is_none() {
        return Err(file.other_than("a LoRA").into());
    }
    let lora = LoraFile::of(file, path)?;
    Ok(if ignore_alpha { lora.ignoring_alpha() } else { lora })
}

/// The tables of sines, of `length` frames, that files for older readers hold beside every attention of `official`.
pub fn position_tables(official: &NamedTensors, length: i64) -> NamedTensors {
    let table = |name: &str| {
        let path = name.strip_suffix(".to_q.weight").filter(|path| path.contains(".attention_blocks."))?;
        let width = official.shape(name)?[1];
        Some((format!("{path}.pos_encoder.pe"), motion::position_encoding(length, width)))
    };
    official.names().filter_map(table).collect()
}

/// The same for the blocks of diffusers' names, one for both attentions.
pub fn adapter_tables(diffusers: &NamedTensors, length: i64) -> NamedTensors {
    let table = |name: &str| {
        let path = name.strip_suffix(".attn1.to_q.weight").filter(|path| path.contains(".motion_modules."))?;
        let width = diffusers.shape(name)?[1];
        Some((format!("{path}.pos_embed.pe"), motion::position_encoding(length, width)))
    };
    diffusers.names().filter_map(table).collect()
}
