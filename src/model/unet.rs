//! The denoising UNet of Stable Diffusion 1.x, for pictures and for clips: one implementation.
//!
//! Activations are `[B·F, C, H, W]` (row `b·F + f`) with the number of frames beside them. A picture is a clip of one frame.
//! Only motion modules, and the norms whose statistics span a clip, look at F; the text `[B, L, D]` and the time
//! embedding `[B, T]` are one row per clip and are never repeated per frame.

pub mod blocks;
pub mod config;
pub mod motion;
pub mod time;
pub mod transformer;

pub use config::{Config, Heads, Unsupported};

use tch::Tensor;

use self::{
    blocks::{DownBlock, MidBlock, UpBlock},
    time::TimeEmbedding,
};
use crate::{
    native::Shared,
    nn::{Checkpointing, Conv2d, GroupNorm, Params},
};

/// The network; see [`Config`] for its sizes and [`motion::Config`] for what is put in for video.
#[derive(Debug)]
pub struct UNet {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    checkpointing: Checkpointing,
}

// SAFETY: layers hold tensors and sizes: none keeps its `Params`, a `Cell` or an `Rc`.
unsafe impl Shared for UNet {}

impl UNet {
    /// Builds the network at the root of its checkpoint; without `motion` it has no temporal layers.
    pub fn new(params: &Params, config: &Config, motion: Option<&motion::Config>) -> UNet {
        let widths = &config.block_out_channels;
        let (first, last) = (widths[0], *widths.last().expect("a UNet has at least one level"));
        let layout = blocks::Layout::new(config, motion);
        UNet {
            conv_in: Conv2d::new(&(params / "conv_in"), config.in_channels, first, 3),
            time_embedding: TimeEmbedding::new(&(params / "time_embedding"), first, 4 * first, config),
            down_blocks: layout.down(&(params / "down_blocks")),
            mid_block: layout.mid(&(params / "mid_block"), last),
            up_blocks: layout.up(&(params / "up_blocks")),
            conv_norm_out: layout.norm_out(&(params / "conv_norm_out"), first),
            conv_out: Conv2d::new(&(params / "conv_out"), first, config.out_channels, 3),
            checkpointing: Checkpointing::None,
        }
    }

    /// The same network, of which a backward pass computes again what `checkpointing` says.
    pub fn with_checkpointing(self, checkpointing: Checkpointing) -> UNet {
        UNet { checkpointing, ..self }
    }

    /// Computes in the kind of `text`. The model's prediction for `latents_bcfhw` `[B, C, F, H, W]` at `timesteps` `[B]` under `text` `[B, L, D]`;
    /// same shape as the latents.
    pub fn forward(&self, latents_bcfhw: &Tensor, timesteps: &Tensor, text: &Tensor) -> Tensor {
        let (clips, channels, frames, height, width) = latents_bcfhw.size5().expect("[B, C, F, H, W]");
        let folded = latents_bcfhw.transpose(1, 2).reshape([clips * frames, channels, height, width]);
        let out = self.forward_folded(&folded, timesteps, text, frames);
        out.view([clips, frames, -1, height, width]).transpose(1, 2)
    }

    /// The same on `[B·F, C, H, W]`.
    pub fn forward_folded(&self, sample: &Tensor, timesteps: &Tensor, text: &Tensor, frames: i64) -> Tensor {
        let kind = text.kind();
        let time = self.time_embedding.forward(timesteps, kind);
        let inputs = blocks::Inputs { time: &time, text, frames, checkpointing: self.checkpointing };
        let mut h = self.conv_in.forward(&sample.to_kind(kind));
        let mut skips = vec![h.shallow_clone()];
        for block in &self.down_blocks {
            h = block.forward(h, &inputs, &mut skips);
        }
        h = self.mid_block.forward(h, &inputs);
        for block in &self.up_blocks {
            h = block.forward(h, &inputs, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h, frames))
    }
}
