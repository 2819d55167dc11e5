//! The spatial transformer: self-attention within a frame, cross-attention to the text, a gated feed-forward.

use tch::Tensor;

use crate::native::geglu;
use crate::nn::{Attention, Conv2d, GroupNorm, LayerNorm, Linear, Params};

/// GroupNorm → projection → one transformer block → projection, with a residual around all of it.
#[derive(Debug)]
pub struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_block: TransformerBlock,
    proj_out: Projection,
}

/// What a spatial transformer is sized by.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Attention heads.
    pub heads: i64,
    /// Width of the text states.
    pub cross_attention_dim: i64,
    /// Groups of the norm.
    pub groups: i64,
    /// Linear instead of 1×1 convolutional projections.
    pub linear_projection: bool,
}

impl SpatialTransformer {
    /// On `channels` channels.
    pub fn new(params: &Params, channels: i64, options: Options) -> SpatialTransformer {
        let block = params / "transformer_blocks" / 0;
        SpatialTransformer {
            norm: GroupNorm::new(&(params / "norm"), options.groups, channels, 1e-6),
            proj_in: Projection::new(&(params / "proj_in"), channels, options.linear_projection),
            transformer_block: TransformerBlock::new(&block, channels, options),
            proj_out: Projection::new(&(params / "proj_out"), channels, options.linear_projection),
        }
    }

    /// What it looks up in `text` `[B, L, D]`.
    pub fn read(&self, text: &Tensor) -> Tensor {
        self.transformer_block.attn2.keys_values(text)
    }

    /// `x` `[B·F, C, H, W]`; `text` is what [`SpatialTransformer::read`] gave of B rows.
    pub fn forward(&self, x: &Tensor, text: &Tensor) -> Tensor {
        self.finish(x, &self.begin(x), text)
    }

    /// As far as it goes without a text: `[B·F, C, H, W]` to `[B·F, H·W, C]`.
    pub fn begin(&self, x: &Tensor) -> Tensor {
        // Statistics per frame in every version: the official code folds the frames before this norm.
        let h = self.norm.forward(x, 1);
        self.transformer_block.begin(&self.proj_in.tokens_of(&h))
    }

    /// From there on: `begun` is what [`SpatialTransformer::begin`] gave of `x`.
    pub fn finish(&self, x: &Tensor, begun: &Tensor, text: &Tensor) -> Tensor {
        let (rows, channels, height, width) = x.size4().expect("[B·F, C, H, W]");
        let h = self.transformer_block.finish(begun, text);
        self.proj_out.picture_onto(&h, [rows, channels, height, width], x)
    }
}

/// Between `[N, C, H, W]` and `[N, H·W, C]`, as a 1×1 convolution or as a linear layer: the same arithmetic, another shape
/// of weight.
#[derive(Debug)]
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(params: &Params, channels: i64, linear: bool) -> Projection {
        if linear {
            Projection::Linear(Linear::new(params, channels, channels))
        } else {
            Projection::Conv(Conv2d::new(params, channels, channels, 1))
        }
    }

    fn tokens_of(&self, x: &Tensor) -> Tensor {
        let tokens = |x: Tensor| x.flatten(2, 3).transpose(1, 2).contiguous();
        match self {
            Projection::Conv(conv) => tokens(conv.forward(x)),
            Projection::Linear(linear) => linear.forward(&tokens(x.shallow_clone())),
        }
    }

    /// A picture of `shape`, added to `onto`.
    fn picture_onto(&self, x: &Tensor, shape: [i64; 4], onto: &Tensor) -> Tensor {
        let picture = |x: Tensor| x.transpose(1, 2).reshape(shape);
        match self {
            Projection::Conv(conv) => conv.forward_onto(&picture(x.shallow_clone()), onto),
            Projection::Linear(linear) => picture(linear.forward_onto(x, &onto.flatten(2, 3).transpose(1, 2))),
        }
    }
}

/// Pre-norm: self-attention, cross-attention, feed-forward.
#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(params: &Params, channels: i64, options: Options) -> TransformerBlock {
        let Options { heads, cross_attention_dim, .. } = options;
        TransformerBlock {
            norm1: LayerNorm::new(&(params / "norm1"), channels),
            attn1: Attention::over_itself(&(params / "attn1"), channels, channels, heads),
            norm2: LayerNorm::new(&(params / "norm2"), channels),
            attn2: Attention::new(&(params / "attn2"), channels, cross_attention_dim, channels, heads),
            norm3: LayerNorm::new(&(params / "norm3"), channels),
            ff: FeedForward::new(&(params / "ff"), channels),
        }
    }

    fn begin(&self, x: &Tensor) -> Tensor {
        self.attn1.forward_onto(&self.norm1.forward(x), x)
    }

    fn finish(&self, x: &Tensor, text: &Tensor) -> Tensor {
        let x = self.attn2.forward_cross_onto(&self.norm2.forward(x), text, x);
        self.ff.forward_onto(&self.norm3.forward(&x), &x)
    }
}

/// GEGLU of inner width 4C: `net.2(value · GELU(gate))`, value first, with the GELU of the error function.
#[derive(Debug)]
pub struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    /// On `channels` features.
    pub fn new(params: &Params, channels: i64) -> FeedForward {
        FeedForward {
            proj: Linear::new(&(params / "net" / 0 / "proj"), channels, 8 * channels),
            out: Linear::new(&(params / "net" / 2), 4 * channels, channels),
        }
    }

    /// `[…, C]` to the same, added to `onto`.
    pub fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> Tensor {
        self.out.forward_onto(&geglu(&self.proj.forward(x)), onto)
    }
}
