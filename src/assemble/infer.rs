//! The sizes of networks from the shapes of their tensors, for files that come without a configuration.
//!
//! Shapes do not tell everything: the number of heads and of a norm's groups are Stable Diffusion 1.x's. Files that this
//! program wrote say those in their metadata.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    model::{clip, unet, vae},
    weights::NamedTensors,
};

/// The metadata key under which a base in one file keeps the configurations of its folder, as JSON: `unet`, `vae`,
/// `text_encoder`, `scheduler`.
pub const CONFIGS_KEY: &str = "animatediff.configs";

/// The configuration of the folder `part` that a file's metadata holds.
pub fn told(metadata: &BTreeMap<String, String>, part: &str) -> Option<Value> {
    serde_json::from_str::<Value>(metadata.get(CONFIGS_KEY)?).ok()?.get_mut(part).map(Value::take)
}

/// `unet/config.json` of a UNet in our names; what has no sign of its own is left at its default.
pub fn unet(tensors: &NamedTensors) -> Value {
    let defaults = unet::Config::default();
    let axis = |name: &str, axis: usize| tensors.shape(name).and_then(|shape| shape.get(axis).copied());
    let count =
        |prefix: &str, rest: &str| (0..).take_while(|i| tensors.contains(&format!("{prefix}{i}{rest}"))).count();
    let levels = count("down_blocks.", ".resnets.0.conv2.weight");
    let width = |level| axis(&format!("down_blocks.{level}.resnets.0.conv2.weight"), 0).unwrap_or(0);
    let has = |side: &str, level| tensors.contains(&format!("{side}.{level}.attentions.0.norm.weight"));
    let types = |side, with, without| {
        (0..levels).map(|level| if has(side, level) { with } else { without }).collect::<Vec<&str>>()
    };
    let projection = tensors.names().find(|name| name.ends_with(".proj_in.weight") && name.contains(".attentions."));
    let context = tensors.names().find(|name| name.ends_with(".attn2.to_k.weight"));
    json!({
        "in_channels": axis("conv_in.weight", 1).unwrap_or(defaults.in_channels),
        "out_channels": axis("conv_out.weight", 0).unwrap_or(defaults.out_channels),
        "block_out_channels": (0..levels).map(width).collect::<Vec<_>>(),
        "layers_per_block": count("down_blocks.0.resnets.", ".conv2.weight"),
        "down_block_types": types("down_blocks", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": types("up_blocks", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": context.and_then(|name| axis(name, 1)).unwrap_or(defaults.cross_attention_dim),
        "use_linear_projection": projection.and_then(|name| tensors.shape(name)).is_some_and(|shape| shape.len() == 2),
    })
}

/// The VAE's.
pub fn vae(tensors: &NamedTensors) -> vae::Config {
    let defaults = vae::Config::default();
    let axis = |name: &str| tensors.shape(name).and_then(|shape| shape.first().copied());
    let count =
        |prefix: &str, rest: &str| (0..).take_while(|i| tensors.contains(&format!("{prefix}{i}{rest}"))).count();
    let levels = count("encoder.down_blocks.", ".resnets.0.conv2.weight");
    let width = |level| axis(&format!("encoder.down_blocks.{level}.resnets.0.conv2.weight")).unwrap_or(0);
    vae::Config {
        block_out_channels: (0..levels).map(width).collect(),
        layers_per_block: count("encoder.down_blocks.0.resnets.", ".conv2.weight") as i64,
        latent_channels: axis("post_quant_conv.weight").unwrap_or(defaults.latent_channels),
        ..defaults
    }
}

/// The text encoder's; CLIP's heads are 64 wide.
pub fn text(tensors: &NamedTensors) -> clip::Config {
    let defaults = clip::Config::default();
    let shape = |name: &str| tensors.shape(name).filter(|shape| !shape.is_empty());
    let layer = |i: usize| tensors.contains(&format!("text_model.encoder.layers.{i}.mlp.fc1.weight"));
    let first = |name: &str, default| shape(name).map_or(default, |shape| shape[0]);
    let tokens = shape("text_model.embeddings.token_embedding.weight");
    let width = tokens.as_ref().and_then(|shape| shape.get(1).copied()).unwrap_or(defaults.hidden_size);
    clip::Config {
        vocab_size: tokens.map_or(defaults.vocab_size, |shape| shape[0]),
        hidden_size: width,
        intermediate_size: first("text_model.encoder.layers.0.mlp.fc1.weight", defaults.intermediate_size),
        num_hidden_layers: (0..).take_while(|&i| layer(i)).count() as i64,
        num_attention_heads: (width / 64).max(1),
        max_position_embeddings: first(
            "text_model.embeddings.position_embedding.weight",
            defaults.max_position_embeddings,
        ),
        ..defaults
    }
}

/// Channels per level of the UNet that a motion module is for, by its norms.
pub fn motion_widths(tensors: &NamedTensors) -> Vec<i64> {
    let norm = |level: usize| tensors.shape(&format!("down_blocks.{level}.motion_modules.0.norm.weight"));
    (0..).map_while(|level| norm(level)?.first().copied()).collect()
}

/// Modules per level on the way down.
pub fn motion_layers(tensors: &NamedTensors) -> i64 {
    let has = |index: usize| tensors.contains(&format!("down_blocks.0.motion_modules.{index}.norm.weight"));
    (0..).take_while(|&index| has(index)).count() as i64
}
