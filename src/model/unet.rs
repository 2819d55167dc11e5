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

use tch::{Kind, Tensor};

use self::{
    blocks::{Begun, DownBlock, LayerText, MidBlock, Texts, UpBlock},
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
        let (folded, frames) = fold(latents_bcfhw);
        unfold(&self.forward_folded(&folded, timesteps, text, frames), frames)
    }

    /// The same on `[B·F, C, H, W]`.
    pub fn forward_folded(&self, sample: &Tensor, timesteps: &Tensor, text: &Tensor, frames: i64) -> Tensor {
        let (kind, reading) = (text.kind(), self.read(text));
        let time = self.time_embedding.forward(timesteps, kind);
        let (inputs, mut texts) = (self.inputs(&time, frames), reading.0.iter());
        let x = self.conv_in.forward(&sample.to_kind(kind));
        let mut skips = vec![x.shallow_clone()];
        let h = self.down_blocks[0].forward(x, &inputs, &mut texts, &mut skips);
        self.go_on(h, &inputs, &mut texts, skips)
    }

    /// What all layers look up in `text` `[B, L, D]`: the same at every timestep.
    pub fn read(&self, text: &Tensor) -> Reading {
        let down = self.down_blocks.iter().flat_map(|block| block.read(text));
        let up = self.up_blocks.iter().flat_map(|block| block.read(text));
        Reading(down.chain([self.mid_block.read(text)]).chain(up).collect())
    }

    /// As far as a prediction goes without a text, computed in `kind`: the same under every text. Keeps nothing for a backward pass to
    /// compute again.
    pub fn begin(&self, latents_bcfhw: &Tensor, timesteps: &Tensor, kind: Kind) -> Start {
        let (folded, frames) = fold(latents_bcfhw);
        let time = self.time_embedding.forward(timesteps, kind);
        let x = self.conv_in.forward(&folded.to_kind(kind));
        let begun = self.down_blocks[0].begin(&x, &self.inputs(&time, frames));
        Start { frames, time, x, begun }
    }

    /// From there on, under texts of as many rows: `[B, C, F, H, W]`.
    pub fn finish(&self, start: &Start, reading: &Reading) -> Tensor {
        let Start { frames, time, x, begun } = start;
        let (inputs, mut texts) = (self.inputs(time, *frames), reading.0.iter());
        let mut skips = vec![x.shallow_clone()];
        let h = self.down_blocks[0].finish(begun, &inputs, &mut texts, &mut skips);
        unfold(&self.go_on(h, &inputs, &mut texts, skips), *frames)
    }

    fn inputs<'a>(&self, time: &'a Tensor, frames: i64) -> blocks::Inputs<'a> {
        blocks::Inputs { time, frames, checkpointing: self.checkpointing }
    }

    /// From the output of the first level on.
    fn go_on(&self, first: Tensor, inputs: &blocks::Inputs, texts: &mut Texts, mut skips: Vec<Tensor>) -> Tensor {
        let mut h = first;
        for block in &self.down_blocks[1..] {
            h = block.forward(h, inputs, texts, &mut skips);
        }
        h = self.mid_block.forward(h, inputs, texts);
        for block in &self.up_blocks {
            h = block.forward(h, inputs, texts, &mut skips);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h, inputs.frames))
    }
}

/// What the attentions of a network look up in a text, in the order of its layers: see [`UNet::read`].
#[derive(Debug)]
pub struct Reading(Vec<LayerText>);

impl Reading {
    /// The same tensors.
    pub fn shared(&self) -> Reading {
        Reading(self.0.iter().map(|text| text.map(Tensor::shallow_clone)).collect())
    }

    /// In `parts` parts along the rows of the text, as even as can be.
    pub fn split(&self, parts: usize) -> Vec<Reading> {
        let part =
            |index: usize| Reading(self.0.iter().map(|text| text.map(|tensor| piece(tensor, parts, index))).collect());
        (0..parts).map(part).collect()
    }
}

/// A prediction as far as it goes without a text: see [`UNet::begin`].
#[derive(Debug)]
pub struct Start {
    frames: i64,
    /// `[B, time_dim]`.
    time: Tensor,
    /// `[B·F, C, H, W]`.
    x: Tensor,
    begun: Begun,
}

impl Start {
    /// For so many texts instead of one: all rows under the first, then all under the second.
    pub fn repeated(&self, texts: usize) -> Start {
        self.map(|tensor| Tensor::cat(&vec![tensor; texts], 0))
    }

    /// In `parts` parts along its clips, as even as can be.
    pub fn split(&self, parts: usize) -> Vec<Start> {
        let clips = self.time.size()[0];
        let part = |index: usize| {
            self.map(|tensor| {
                // Frame by frame or clip by clip: whole clips in either.
                let shape = [&[clips, -1], &tensor.size()[1..]].concat();
                piece(&tensor.view(&shape[..]), parts, index).flatten(0, 1)
            })
        };
        (0..parts).map(part).collect()
    }

    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Start {
        let Start { frames, time, x, begun } = self;
        Start { frames: *frames, time: change(time), x: change(x), begun: begun.map(change) }
    }
}

fn piece(tensor: &Tensor, parts: usize, index: usize) -> Tensor {
    tensor.tensor_split(parts as i64, 0).swap_remove(index)
}

/// `[B, C, F, H, W]` to `[B·F, C, H, W]`, and F.
fn fold(latents_bcfhw: &Tensor) -> (Tensor, i64) {
    let (clips, channels, frames, height, width) = latents_bcfhw.size5().expect("[B, C, F, H, W]");
    (latents_bcfhw.transpose(1, 2).reshape([clips * frames, channels, height, width]), frames)
}

/// The way back.
fn unfold(out: &Tensor, frames: i64) -> Tensor {
    let (rows, channels, height, width) = out.size4().expect("[B·F, C, H, W]");
    out.view([rows / frames, frames, channels, height, width]).transpose(1, 2)
}
