//! `unet/config.json` of a diffusers folder: what is read, and which models are told apart and refused.

use serde::{Deserialize, Serialize};

/// The sizes of a UNet, with diffusers' names and defaults (which are Stable Diffusion 1.5's).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Latent height and width the model was trained at.
    pub sample_size: i64,
    /// Channels of the latents.
    pub in_channels: i64,
    /// Channels of the prediction.
    pub out_channels: i64,
    /// Whether inputs are first mapped to [-1, 1].
    pub center_input_sample: bool,
    /// Cosine first in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the divisor of the time frequencies.
    pub freq_shift: i64,
    /// One of `CrossAttnDownBlock2D`, `DownBlock2D` per level.
    pub down_block_types: Vec<String>,
    /// One of `UpBlock2D`, `CrossAttnUpBlock2D` per level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// Channels per level.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers_per_block: i64,
    /// Padding of the downsampling convolutions.
    pub downsample_padding: i64,
    /// Activation.
    pub act_fn: String,
    /// Groups of every GroupNorm.
    pub norm_num_groups: i64,
    /// Epsilon of the residual blocks' norms and of the last one.
    pub norm_eps: f64,
    /// Width of the text states.
    pub cross_attention_dim: i64,
    /// In Stable Diffusion 1.x, for all its name, the number of heads.
    pub attention_head_dim: Heads,
    /// Linear instead of 1×1 convolutions around the spatial transformers.
    pub use_linear_projection: bool,
}

/// The number of heads: the same at every level, or one per level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Heads {
    /// At every level.
    All(i64),
    /// Per level, highest resolution first.
    PerLevel(Vec<i64>),
}

impl Heads {
    /// At `level`, 0 being the highest resolution.
    pub fn at(&self, level: usize) -> i64 {
        match self {
            Heads::All(heads) => *heads,
            Heads::PerLevel(heads) => heads[level],
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        let names = |names: [&str; 4]| names.map(String::from).to_vec();
        let (cross_down, cross_up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Config {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: names([cross_down, cross_down, cross_down, "DownBlock2D"]),
            up_block_types: names(["UpBlock2D", cross_up, cross_up, cross_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            downsample_padding: 1,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 768,
            attention_head_dim: Heads::All(8),
            use_linear_projection: false,
        }
    }
}

/// Why a UNet cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Another family of models, by name.
    #[error("this is a {0} model; AnimateDiff's modules are for Stable Diffusion 1.x: give a base of that family")]
    Family(&'static str),
    /// A key asks for something that Stable Diffusion 1.x does not have.
    #[error("`{key}: {value}` is not supported: expected {expected}")]
    Key {
        /// Key in config.json.
        key: &'static str,
        /// Its value there.
        value: String,
        /// What is supported.
        expected: String,
    },
}

impl Config {
    /// Reads `unet/config.json`; keys that this network has no use for are checked for being neutral.
    pub fn from_json(json: &serde_json::Value) -> Result<Config, Box<dyn std::error::Error + Send + Sync>> {
        refuse_other_families(json)?;
        refuse_unsupported(json)?;
        let config: Config = serde_path_to_error::deserialize(json)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Unsupported> {
        let wrong =
            |key, value: String, expected: &str| Err(Unsupported::Key { key, value, expected: expected.into() });
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            return wrong(
                "block_out_channels",
                format!("{:?}", self.block_out_channels),
                "one entry per down and up block",
            );
        }
        if let Some(other) =
            self.down_block_types.iter().find(|name| !["CrossAttnDownBlock2D", "DownBlock2D"].contains(&name.as_str()))
        {
            return wrong("down_block_types", other.clone(), "CrossAttnDownBlock2D or DownBlock2D");
        }
        if let Some(other) =
            self.up_block_types.iter().find(|name| !["CrossAttnUpBlock2D", "UpBlock2D"].contains(&name.as_str()))
        {
            return wrong("up_block_types", other.clone(), "CrossAttnUpBlock2D or UpBlock2D");
        }
        if self.norm_num_groups < 1
            || self.block_out_channels.iter().any(|&width| width < 1 || width % self.norm_num_groups != 0)
        {
            return wrong(
                "norm_num_groups",
                self.norm_num_groups.to_string(),
                &format!("a divisor of {:?}", self.block_out_channels),
            );
        }
        if let Heads::PerLevel(heads) = &self.attention_head_dim
            && heads.len() != levels
        {
            return wrong("attention_head_dim", format!("{heads:?}"), "one number, or one per level");
        }
        let indivisible = |(level, width): (usize, &i64)| {
            let heads = self.attention_head_dim.at(level);
            heads < 1 || width % heads != 0
        };
        if self.block_out_channels.iter().enumerate().any(indivisible) {
            let expected = format!("heads that divide {:?}", self.block_out_channels);
            return wrong("attention_head_dim", format!("{:?}", self.attention_head_dim), &expected);
        }
        if self.freq_shift != 0 && self.freq_shift != 1 {
            return wrong("freq_shift", self.freq_shift.to_string(), "0 or 1");
        }
        if self.layers_per_block < 1 {
            return wrong("layers_per_block", self.layers_per_block.to_string(), "at least 1");
        }
        Ok(())
    }
}

/// Says which other family a `unet/config.json` is of, if it is of one.
pub fn refuse_other_families(json: &serde_json::Value) -> Result<(), Unsupported> {
    if json.get("addition_embed_type").is_some_and(|value| !value.is_null()) {
        return Err(Unsupported::Family("Stable Diffusion XL"));
    }
    if json.get("cross_attention_dim").and_then(serde_json::Value::as_i64) == Some(1024) {
        return Err(Unsupported::Family("Stable Diffusion 2"));
    }
    if json.get("in_channels").and_then(serde_json::Value::as_i64) == Some(9) {
        return Err(Unsupported::Family("Stable Diffusion inpainting"));
    }
    Ok(())
}

fn refuse_unsupported(json: &serde_json::Value) -> Result<(), Unsupported> {
    use serde_json::json;
    let only = [
        ("act_fn", json!("silu")),
        ("class_embed_type", json!(null)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("mid_block_scale_factor", json!(1)),
        ("downsample_padding", json!(1)),
        ("only_cross_attention", json!(false)),
        ("dual_cross_attention", json!(false)),
        ("num_class_embeds", json!(null)),
        ("num_attention_heads", json!(null)),
        ("upcast_attention", json!(false)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_embedding_type", json!("positional")),
        ("transformer_layers_per_block", json!(1)),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("encoder_hid_dim", json!(null)),
    ];
    for (key, expected) in only {
        let Some(value) = json.get(key) else { continue };
        let same = *value == expected || matches!((value.as_f64(), expected.as_f64()), (Some(a), Some(b)) if a == b);
        let default = value.is_null() && key != "act_fn";
        if !same && !default {
            let expected = format!("{expected}, as in Stable Diffusion 1.x");
            return Err(Unsupported::Key { key, value: value.to_string(), expected });
        }
    }
    Ok(())
}
