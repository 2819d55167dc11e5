//! The levels of the UNet: residual blocks, spatial transformers and motion modules in their order.

use std::{iter, slice};

use tch::Tensor;

use super::{
    Config, motion,
    motion::MotionModule,
    transformer::{self, SpatialTransformer},
};
use crate::{
    model::resnet::{self, Downsample, ResnetBlock, Upsample},
    native::{Block, Shared},
    nn::{Checkpointing, GroupNorm, NormScope, Params, Unit},
};

/// What every block is given besides its activations.
pub struct Inputs<'a> {
    /// `[B, time_dim]`.
    pub time: &'a Tensor,
    /// Frames per clip.
    pub frames: i64,
    /// What a backward pass computes again.
    pub checkpointing: Checkpointing,
}

impl Inputs<'_> {
    fn resnet(&self, resnet: &Unit<ResnetBlock>, x: &Tensor) -> Tensor {
        let again = self.checkpointing != Checkpointing::None;
        resnet.forward(&[x.shallow_clone(), self.time.shallow_clone()], self.frames, again)
    }

    /// A block that looks at the text.
    fn transformer<B: Block>(&self, block: &Unit<B>, x: &Tensor, text: &[Tensor]) -> Tensor {
        let again = self.checkpointing == Checkpointing::Full;
        let inputs: Vec<Tensor> = iter::once(x).chain(text).map(Tensor::shallow_clone).collect();
        block.forward(&inputs, self.frames, again)
    }
}

// SAFETY: layers hold tensors and sizes, as in the whole network.
unsafe impl Shared for ResnetBlock {}
// SAFETY: likewise.
unsafe impl Shared for SpatialTransformer {}
// SAFETY: likewise.
unsafe impl Shared for MotionModule {}

impl Block for ResnetBlock {
    fn run(&self, inputs: &[Tensor], frames: i64) -> Tensor {
        self.forward(&inputs[0], inputs.get(1), frames)
    }
}

impl Block for SpatialTransformer {
    fn run(&self, inputs: &[Tensor], _frames: i64) -> Tensor {
        self.forward(&inputs[0], &inputs[1])
    }
}

impl Block for MotionModule {
    fn run(&self, inputs: &[Tensor], frames: i64) -> Tensor {
        self.forward(&inputs[0], &inputs[1..], frames)
    }
}

/// What the attentions of a layer look up in a text, one row per clip.
#[derive(Debug)]
pub struct LayerText {
    attention: Option<Tensor>,
    motion: Vec<Tensor>,
}

impl LayerText {
    /// `change` of each tensor in it.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> LayerText {
        LayerText { attention: self.attention.as_ref().map(&change), motion: self.motion.iter().map(&change).collect() }
    }
}

/// Those of the layers to come.
pub type Texts<'a> = slice::Iter<'a, LayerText>;

/// A layer as far as it goes without a text.
#[derive(Debug)]
pub struct Begun {
    /// `[B·F, C, H, W]`.
    h: Tensor,
    /// Of its transformer, `[B·F, H·W, C]`.
    tokens: Option<Tensor>,
}

impl Begun {
    /// `change` of each tensor in it, along whose first axis frames and clips lie.
    pub fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Begun {
        Begun { h: change(&self.h), tokens: self.tokens.as_ref().map(&change) }
    }
}

/// One step of a level: residual block, then what follows it.
#[derive(Debug)]
struct Layer {
    resnet: Unit<ResnetBlock>,
    attention: Option<Unit<SpatialTransformer>>,
    motion: Option<Unit<MotionModule>>,
}

impl Layer {
    fn read(&self, text: &Tensor) -> LayerText {
        LayerText {
            attention: self.attention.as_ref().map(|attention| attention.read(text)),
            motion: self.motion.as_ref().map_or_else(Vec::new, |motion| motion.read(text)),
        }
    }

    fn forward(&self, x: &Tensor, inputs: &Inputs, texts: &mut Texts) -> Tensor {
        let text = next(texts);
        let mut h = inputs.resnet(&self.resnet, x);
        if let Some(attention) = &self.attention {
            h = inputs.transformer(attention, &h, text.attention.as_slice());
        }
        self.move_frames(h, inputs, text)
    }

    fn begin(&self, x: &Tensor, inputs: &Inputs) -> Begun {
        let h = inputs.resnet(&self.resnet, x);
        let tokens = self.attention.as_ref().map(|attention| attention.begin(&h));
        Begun { h, tokens }
    }

    fn finish(&self, begun: &Begun, inputs: &Inputs, texts: &mut Texts) -> Tensor {
        let (text, Begun { h, tokens }) = (next(texts), begun);
        let h = match (&self.attention, tokens, &text.attention) {
            (Some(attention), Some(tokens), Some(text)) => attention.finish(h, tokens, text),
            _ => h.shallow_clone(),
        };
        self.move_frames(h, inputs, text)
    }

    fn move_frames(&self, h: Tensor, inputs: &Inputs, text: &LayerText) -> Tensor {
        match &self.motion {
            Some(motion) => inputs.transformer(motion, &h, &text.motion),
            None => h,
        }
    }
}

fn next<'a>(texts: &mut Texts<'a>) -> &'a LayerText {
    texts.next().expect("a text for every layer")
}

/// A level on the way down; each of its outputs is a skip connection.
#[derive(Debug)]
pub struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    /// What each of its layers looks up in `text` `[B, L, D]`.
    pub fn read(&self, text: &Tensor) -> impl Iterator<Item = LayerText> {
        self.layers.iter().map(|layer| layer.read(text))
    }

    /// Pushes its outputs onto `skips`.
    pub fn forward(&self, x: Tensor, inputs: &Inputs, texts: &mut Texts, skips: &mut Vec<Tensor>) -> Tensor {
        let first = self.layers[0].forward(&x, inputs, texts);
        self.go_on(first, inputs, texts, skips)
    }

    /// Its first layer, as far as it goes without a text.
    pub fn begin(&self, x: &Tensor, inputs: &Inputs) -> Begun {
        self.layers[0].begin(x, inputs)
    }

    /// From there on. Pushes its outputs onto `skips`.
    pub fn finish(&self, begun: &Begun, inputs: &Inputs, texts: &mut Texts, skips: &mut Vec<Tensor>) -> Tensor {
        let first = self.layers[0].finish(begun, inputs, texts);
        self.go_on(first, inputs, texts, skips)
    }

    /// From the output of the first layer on.
    fn go_on(&self, first: Tensor, inputs: &Inputs, texts: &mut Texts, skips: &mut Vec<Tensor>) -> Tensor {
        let mut h = first;
        skips.push(h.shallow_clone());
        for layer in &self.layers[1..] {
            h = layer.forward(&h, inputs, texts);
            skips.push(h.shallow_clone());
        }
        if let Some(downsampler) = &self.downsampler {
            h = downsampler.forward(&h);
            skips.push(h.shallow_clone());
        }
        h
    }
}

/// Residual block, spatial transformer, (motion module,) residual block.
#[derive(Debug)]
pub struct MidBlock {
    first: Layer,
    last: Unit<ResnetBlock>,
}

impl MidBlock {
    /// What it looks up in `text` `[B, L, D]`.
    pub fn read(&self, text: &Tensor) -> LayerText {
        self.first.read(text)
    }

    /// Keeps the shape.
    pub fn forward(&self, x: Tensor, inputs: &Inputs, texts: &mut Texts) -> Tensor {
        inputs.resnet(&self.last, &self.first.forward(&x, inputs, texts))
    }
}

/// A level on the way up; each layer takes a skip connection.
#[derive(Debug)]
pub struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    /// What each of its layers looks up in `text` `[B, L, D]`.
    pub fn read(&self, text: &Tensor) -> impl Iterator<Item = LayerText> {
        self.layers.iter().map(|layer| layer.read(text))
    }

    /// Pops its skip connections off `skips`, and resizes to the next one's size: sizes need not be powers of two.
    pub fn forward(&self, x: Tensor, inputs: &Inputs, texts: &mut Texts, skips: &mut Vec<Tensor>) -> Tensor {
        let mut h = x;
        for layer in &self.layers {
            let skip = skips.pop().expect("as many skip connections as layers on the way up");
            h = layer.forward(&Tensor::cat(&[h, skip], 1), inputs, texts);
        }
        if let Some(upsampler) = &self.upsampler {
            let next = skips.last().expect("an upsampled level is not the last");
            let (_, _, height, width) = next.size4().expect("[B·F, C, H, W]");
            h = upsampler.forward(&h, Some((height, width)));
        }
        h
    }
}

/// Lays out the levels that a configuration asks for.
pub struct Layout<'a> {
    config: &'a Config,
    motion: Option<&'a motion::Config>,
}

impl<'a> Layout<'a> {
    /// Without `motion`, a UNet for pictures.
    pub fn new(config: &'a Config, motion: Option<&'a motion::Config>) -> Layout<'a> {
        Layout { config, motion }
    }

    /// All levels down.
    pub fn down(&self, params: &Params) -> Vec<DownBlock> {
        let widths = &self.config.block_out_channels;
        let levels = widths.len();
        let mut input = widths[0];
        let level = |(level, &width): (usize, &i64)| {
            let block = params / level;
            let attention = self.config.down_block_types[level] == "CrossAttnDownBlock2D";
            let motion = self.motion.is_some_and(|motion| motion.in_down_block(1 << level));
            let layer = |index: i64| {
                let inputs = if index == 0 { input } else { width };
                self.layer(&block, index, inputs, width, attention.then_some(level), motion)
            };
            let layers = (0..self.config.layers_per_block).map(layer).collect();
            input = width;
            let downsampler =
                (level + 1 < levels).then(|| Downsample::symmetric(&(&block / "downsamplers" / 0), width));
            DownBlock { layers, downsampler }
        };
        widths.iter().enumerate().map(level).collect()
    }

    /// The middle, on `width` channels.
    pub fn mid(&self, params: &Params, width: i64) -> MidBlock {
        let level = self.config.block_out_channels.len() - 1;
        let motion = self.motion.is_some_and(motion::Config::in_mid_block);
        MidBlock {
            first: self.layer(params, 0, width, width, Some(level), motion),
            last: self.resnet(&(params / "resnets" / 1), width, width),
        }
    }

    /// All levels up.
    pub fn up(&self, params: &Params) -> Vec<UpBlock> {
        let widths: Vec<i64> = self.config.block_out_channels.iter().rev().copied().collect();
        let levels = widths.len();
        let layers_per_block = self.config.layers_per_block;
        let level = |(index, &width): (usize, &i64)| {
            let block = params / index;
            let level = levels - 1 - index;
            let attention = self.config.up_block_types[index] == "CrossAttnUpBlock2D";
            let motion = self.motion.is_some_and(|motion| motion.in_up_block(1 << level));
            let below = widths[index.saturating_sub(1)];
            let last_skip = widths[(index + 1).min(levels - 1)];
            let layer = |index: i64| {
                let skip = if index == layers_per_block { last_skip } else { width };
                let inputs = if index == 0 { below } else { width };
                self.layer(&block, index, inputs + skip, width, attention.then_some(level), motion)
            };
            let layers = (0..=layers_per_block).map(layer).collect();
            let upsampler = (index + 1 < levels).then(|| Upsample::new(&(&block / "upsamplers" / 0), width));
            UpBlock { layers, upsampler }
        };
        widths.iter().enumerate().map(level).collect()
    }

    /// The norm before the last convolution.
    pub fn norm_out(&self, params: &Params, channels: i64) -> GroupNorm {
        let Config { norm_num_groups, norm_eps, .. } = *self.config;
        GroupNorm::scoped(params, norm_num_groups, channels, norm_eps, self.norm_scope())
    }

    /// One layer; `attention_level` is the level whose heads its transformer has, if it has one.
    fn layer(
        &self,
        block: &Params,
        index: i64,
        inputs: i64,
        width: i64,
        attention_level: Option<usize>,
        motion: bool,
    ) -> Layer {
        let config = self.config;
        let attention = |level| {
            let options = transformer::Options {
                heads: config.attention_head_dim.at(level),
                cross_attention_dim: config.cross_attention_dim,
                groups: config.norm_num_groups,
                linear_projection: config.use_linear_projection,
            };
            Unit::new(&(block / "attentions" / index), |params| SpatialTransformer::new(params, width, options))
        };
        let module = |motion: &motion::Config| {
            Unit::new(&(block / "motion_modules" / index), |params| {
                MotionModule::new(params, width, config.norm_num_groups, config.cross_attention_dim, motion)
            })
        };
        Layer {
            resnet: self.resnet(&(block / "resnets" / index), inputs, width),
            attention: attention_level.map(attention),
            motion: self.motion.filter(|_| motion).map(module),
        }
    }

    fn resnet(&self, params: &Params, inputs: i64, outputs: i64) -> Unit<ResnetBlock> {
        let options = resnet::Options {
            groups: self.config.norm_num_groups,
            eps: self.config.norm_eps,
            time_dim: Some(4 * self.config.block_out_channels[0]),
            norm_scope: self.norm_scope(),
        };
        Unit::new(params, |params| ResnetBlock::new(params, inputs, outputs, options))
    }

    fn norm_scope(&self) -> NormScope {
        self.motion.map_or(NormScope::Frame, motion::Config::resnet_norm)
    }
}
