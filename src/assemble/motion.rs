//! Motion modules, adapters and MotionLoRAs from their files, whatever their names, and which architecture a module has.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{AssembleError, Pool, outline};
use crate::{
    diffusion, hub,
    model::unet::{
        self, UNet,
        motion::{self, AttentionType},
    },
    weights::{Content, Dialect, Identified, Lora, LoraFile, LowRankUse, NamedTensors},
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

    /// A module of random weights for a base of `unet`.
    pub fn random(config: motion::Config, unet: &unet::Config, pool: &Pool) -> Motion {
        let mut outline = outline(|params| UNet::new(params, unet, Some(&config)));
        outline.retain(|name, _| name.contains("motion_modules."));
        Motion { tensors: pool.fill(outline), ..Motion::fresh(config) }
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
        let config = Motion::architecture(&file, path)?;
        let metadata = &file.metadata;
        let noise_scheduler_kwargs: diffusion::Config =
            from_metadata(metadata, SCHEDULE_KEY, path)?.unwrap_or_default();
        noise_scheduler_kwargs.check(1).map_err(|(key, message)| AssembleError::Config {
            path: path.to_owned(),
            reason: format!("its metadata `{SCHEDULE_KEY}`: `{key}`: {message}"),
        })?;
        let tensors = file.import(Content::MotionModule)?;
        Ok(Motion { config, noise_scheduler_kwargs, tensors })
    }

    /// The architecture of the module in a file: what its metadata, its configuration or its keys say, in this order.
    pub fn architecture(file: &Identified, path: &Path) -> Result<motion::Config, AssembleError> {
        Ok(match (from_metadata(&file.metadata, ARCHITECTURE_KEY, path)?, adapter_config(file, path)?) {
            (Some(told), _) => told,
            (None, Some(adapter)) => adapter.architecture(file),
            (None, None) => detect(file),
        })
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
    let length = positions.as_deref().and_then(|shape| shape.get(1).copied());
    let mut config = released(has_mid_block(tensors), length);
    let module = &mut config.motion_module_kwargs;
    if let Some(length) = length {
        module.temporal_position_encoding_max_len = length;
    }
    module.attention_block_types = vec![AttentionType::SelfAttention; file.topology.attentions];
    config
}

/// The released architecture with or without a module in the middle block, and with tables of so many frames.
pub fn released(mid_block: bool, length: Option<i64>) -> motion::Config {
    match (mid_block, length) {
        (true, _) => motion::Config::v2(),
        (false, Some(24)) => motion::Config::v1(),
        (false, _) => motion::Config::v3(),
    }
}

/// `config.json` of diffusers' MotionAdapter, as far as it says something that weights do not.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct AdapterConfig {
    motion_max_seq_length: i64,
    motion_num_attention_heads: i64,
    motion_transformer_layers_per_block: i64,
    conv_in_channels: Option<i64>,
}

impl Default for AdapterConfig {
    fn default() -> AdapterConfig {
        AdapterConfig {
            motion_max_seq_length: 32,
            motion_num_attention_heads: 8,
            motion_transformer_layers_per_block: 1,
            conv_in_channels: None,
        }
    }
}

impl AdapterConfig {
    fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: i64, most: i64| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => Err(format!("`{key}: {value}`: 1 to {most} is expected")),
        };
        within("motion_max_seq_length", self.motion_max_seq_length, 16_384)?;
        within("motion_num_attention_heads", self.motion_num_attention_heads, 1024)?;
        within("motion_transformer_layers_per_block", self.motion_transformer_layers_per_block, 64)?;
        match self.conv_in_channels {
            Some(channels) => Err(format!("`conv_in_channels: {channels}`: PIA's modules are not supported")),
            None => Ok(()),
        }
    }

    fn architecture(&self, file: &Identified) -> motion::Config {
        let mut config = released(has_mid_block(&file.tensors), Some(self.motion_max_seq_length));
        let module = &mut config.motion_module_kwargs;
        module.temporal_position_encoding_max_len = self.motion_max_seq_length;
        module.num_attention_heads = self.motion_num_attention_heads;
        module.num_transformer_block = self.motion_transformer_layers_per_block;
        module.attention_block_types = vec![AttentionType::SelfAttention; file.topology.attentions];
        config
    }
}

/// The configuration in the folder of a MotionAdapter, if `path` is one or the weights in it.
fn adapter_config(file: &Identified, path: &Path) -> Result<Option<AdapterConfig>, AssembleError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let config = match path.is_dir() {
        true => path.join("config.json"),
        false if file.format.dialect == Dialect::Diffusers && stem.starts_with("diffusion_pytorch_model") => {
            path.with_file_name("config.json")
        }
        false => return Ok(None),
    };
    if !config.is_file() {
        return Ok(None);
    }
    let wrong = |reason: String| AssembleError::Config { path: config.clone(), reason };
    let text = std::fs::read_to_string(&config).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    if json.get("_class_name").and_then(|name| name.as_str()) != Some("MotionAdapter") {
        return Ok(None);
    }
    let adapter: AdapterConfig = serde_path_to_error::deserialize(json)
        .map_err(|error| wrong(format!("not a MotionAdapter's configuration: {error}")))?;
    adapter.check().map_err(wrong)?;
    Ok(Some(adapter))
}

fn has_mid_block(tensors: &NamedTensors) -> bool {
    tensors.names().any(|name| name.starts_with("mid_block.motion_modules."))
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
        let width = official.shape(name)?.get(1).copied()?;
        Some((format!("{path}.pos_encoder.pe"), motion::position_encoding(length, width)))
    };
    official.names().filter_map(table).collect()
}

/// The same for the blocks of diffusers' names, one for both attentions.
pub fn adapter_tables(diffusers: &NamedTensors, length: i64) -> NamedTensors {
    let table = |name: &str| {
        let path = name.strip_suffix(".attn1.to_q.weight").filter(|path| path.contains(".motion_modules."))?;
        let width = diffusers.shape(name)?.get(1).copied()?;
        Some((format!("{path}.pos_embed.pe"), motion::position_encoding(length, width)))
    };
    diffusers.names().filter_map(table).collect()
}
