//! What the networks compute, counted from the shapes of their weights: two operations for a multiplication with an addition,
//! convolutions, linear layers and attention only, as `torch.utils.flop_counter` counts.
//!
//! The counts are of the plain network, whatever it is computed by: a text that is projected once for all frames counts as if
//! it were projected for each, so that achieved rates of different programs can be compared.

use std::collections::BTreeMap;

use super::Case;
use crate::{
    assemble::outline,
    model::{
        unet::{self, UNet, motion},
        vae::{self, Vae},
    },
};

/// Tokens of a prompt.
const TOKENS: f64 = 77.0;

/// Operations of a pass.
const TERA: f64 = 1e12;

/// What goes through a UNet.
#[derive(Clone, Copy, Debug)]
pub struct Clips {
    /// Clips, both rows of guidance counted.
    pub clips: i64,
    /// Frames of each.
    pub frames: i64,
    /// Side of the latents.
    pub side: i64,
}

/// 10¹² operations of one denoising step of `case`.
pub fn step(case: &Case) -> f64 {
    let rows = if case.guided { 2 } else { 1 };
    unet(&case.scale.sizes().unet, &case.architecture(), clips(case, rows * case.batch))
}

/// 10¹² operations of one update of the motion module: forward and backward, nothing recomputed.
pub fn update(case: &Case) -> f64 {
    let (config, motion, clips) = (case.scale.sizes().unet, case.architecture(), clips(case, case.batch));
    let layers = layers(&config, &motion, clips);
    let forward: f64 = layers.iter().map(|layer| layer.operations).sum();
    let backward: f64 = layers.iter().map(Layer::backward).sum();
    (forward + backward) / TERA
}

/// 10¹² operations of decoding all frames of `case`.
pub fn decode(case: &Case) -> f64 {
    let config = case.scale.sizes().vae;
    vae_decoder(&config, case.frames * case.batch, case.size / config.downscale())
}

/// 10¹² operations of one pass through a UNet.
pub fn unet(config: &unet::Config, motion: &motion::Config, clips: Clips) -> f64 {
    layers(config, motion, clips).iter().map(|layer| layer.operations).sum::<f64>() / TERA
}

/// 10¹² operations of decoding `frames` latents of `side`.
pub fn vae_decoder(config: &vae::Config, frames: i64, side: i64) -> f64 {
    let shapes = outline(|params| Vae::new(params, config));
    let last = config.block_out_channels.len() as i64 - 1;
    let weights = shapes.iter().filter(|(name, _)| name.starts_with("decoder.") || name.starts_with("post_quant_conv"));
    let operations = weights.filter(|(_, shape)| shape.len() > 1).map(|(name, shape)| {
        // Levels of the decoder go up in size.
        let doublings = match index(name, "up_blocks.") {
            Some(level) => level + i64::from(name.contains("upsamplers")),
            None if name.contains("conv_out") => last,
            None => 0,
        };
        let area = ((side << doublings) * (side << doublings)) as f64;
        let attention = if name.ends_with("to_q.weight") { 4.0 * area * area * shape[0] as f64 } else { 0.0 };
        frames as f64 * (2.0 * area * size(shape) + attention)
    });
    operations.sum::<f64>() / TERA
}

fn clips(case: &Case, clips: i64) -> Clips {
    Clips { clips, frames: case.frames, side: case.size / case.scale.sizes().vae.downscale() }
}

/// A weight, or an attention's scores and sums.
struct Layer {
    operations: f64,
    /// What the gradient of its input costs, and of its weight, in passes like the forward one.
    passes: f64,
}

impl Layer {
    fn backward(&self) -> f64 {
        self.operations * self.passes
    }
}

fn layers(config: &unet::Config, motion: &motion::Config, clips: Clips) -> Vec<Layer> {
    let shapes = outline(|params| UNet::new(params, config, Some(motion)));
    let names: BTreeMap<_, _> =
        shapes.iter().filter(|(name, shape)| name.ends_with("weight") && shape.len() > 1).collect();
    names.into_iter().flat_map(|(name, shape)| of_weight(name, shape, config, clips)).collect()
}

fn of_weight(name: &str, shape: &[i64], config: &unet::Config, clips: Clips) -> Vec<Layer> {
    let Clips { clips, frames, side } = clips;
    let (clips, frames) = (clips as f64, frames as f64);
    let area = area(name, config.block_out_channels.len() as i64, side);
    let (of_text, of_time) = (is_text(name), name.contains("time_emb"));
    let positions = match () {
        () if name.starts_with("time_embedding.") => clips,
        () if of_time => clips * frames,
        () if of_text => clips * frames * TOKENS,
        () => clips * frames * area,
    };
    let trained = name.contains("motion_modules.");
    // Before the first motion module, in the text and in the time, nothing is asked for a gradient.
    let reached = !(is_before_motion(name) || of_text || of_time);
    let passes = f64::from(u8::from(reached)) + f64::from(u8::from(trained));
    let weight = Layer { operations: 2.0 * positions * size(shape), passes };
    let width = shape[0] as f64;
    let scores = match () {
        () if trained && name.ends_with(".to_q.weight") => clips * area * frames * frames,
        () if name.ends_with("attn1.to_q.weight") => clips * frames * area * area,
        () if name.ends_with("attn2.to_q.weight") => clips * frames * area * TOKENS,
        () => 0.0,
    };
    // The backward pass computes the scores again, and four products more: five for the two of the forward pass.
    let attention = Layer { operations: 4.0 * width * scores, passes: if reached { 2.5 } else { 0.0 } };
    vec![weight, attention]
}

/// Positions of a feature map at the level of this layer.
fn area(name: &str, levels: i64, side: i64) -> f64 {
    let level = match (index(name, "down_blocks."), index(name, "up_blocks.")) {
        (Some(level), _) => level + i64::from(name.contains("downsamplers")),
        (_, Some(level)) => levels - 1 - level - i64::from(name.contains("upsamplers")),
        _ if name.starts_with("mid_block.") => levels - 1,
        _ => 0,
    };
    // A convolution of stride 2 rounds up.
    let side = (0..level).fold(side, |side, _| (side + 1) / 2);
    (side * side) as f64
}

/// The number that follows `prefix` in `name`.
fn index(name: &str, prefix: &str) -> Option<i64> {
    let rest = &name[name.find(prefix)? + prefix.len()..];
    rest.split('.').next()?.parse().ok()
}

fn is_text(name: &str) -> bool {
    name.contains(".attentions.") && (name.ends_with("attn2.to_k.weight") || name.ends_with("attn2.to_v.weight"))
}

fn is_before_motion(name: &str) -> bool {
    ["conv_in.", "down_blocks.0.resnets.0.", "down_blocks.0.attentions.0."].iter().any(|start| name.starts_with(start))
}

fn size(shape: &[i64]) -> f64 {
    shape.iter().product::<i64>() as f64
}
