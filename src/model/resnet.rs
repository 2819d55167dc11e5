//! The residual block, and the resizing convolutions, that UNet and VAE share.

use tch::Tensor;

use crate::nn::{Conv2d, GroupNorm, Linear, NormScope, Params};

/// What a residual block needs to know besides its widths.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Groups of both norms.
    pub groups: i64,
    /// Epsilon of both norms.
    pub eps: f64,
    /// Width of the time embedding, where there is one.
    pub time_dim: Option<i64>,
    /// Over what the norms take their statistics.
    pub norm_scope: NormScope,
}

/// `shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))) + time)))`.
#[derive(Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// From `inputs` to `outputs` channels, with a 1×1 shortcut where they differ.
    pub fn new(params: &Params, inputs: i64, outputs: i64, options: Options) -> ResnetBlock {
        let Options { groups, eps, time_dim, norm_scope } = options;
        ResnetBlock {
            norm1: GroupNorm::scoped(&(params / "norm1"), groups, inputs, eps, norm_scope),
            conv1: Conv2d::new(&(params / "conv1"), inputs, outputs, 3),
            time_emb_proj: time_dim.map(|dim| Linear::new(&(params / "time_emb_proj"), dim, outputs)),
            norm2: GroupNorm::scoped(&(params / "norm2"), groups, outputs, eps, norm_scope),
            conv2: Conv2d::new(&(params / "conv2"), outputs, outputs, 3),
            conv_shortcut: (inputs != outputs).then(|| Conv2d::new(&(params / "conv_shortcut"), inputs, outputs, 1)),
        }
    }

    /// `x` is `[B·F, C, H, W]`; `time` is `[B, time_dim]`, one row per clip, for a block that takes one.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>, frames: i64) -> Tensor {
        let h = self.conv1.forward(&self.norm1.forward_silu(x, frames));
        let h = match (&self.time_emb_proj, time) {
            (Some(project), Some(time)) => self.norm2.forward_silu_of_sum(&h, &project.forward(&time.silu()), frames),
            (None, None) => self.norm2.forward_silu(&h, frames),
            _ => panic!("a time embedding was given to a block without one, or the other way round"),
        };
        match &self.conv_shortcut {
            Some(shortcut) => self.conv2.forward_onto(&h, &shortcut.forward(x)),
            None => self.conv2.forward_onto(&h, x),
        }
    }
}

/// A 3×3 convolution of stride 2.
#[derive(Debug)]
pub struct Downsample {
    conv: Conv2d,
    asymmetric: bool,
}

impl Downsample {
    /// The UNet's: one row and column of zeros on every side.
    pub fn symmetric(params: &Params, channels: i64) -> Downsample {
        Downsample { conv: Conv2d::new(&(params / "conv"), channels, channels, 3).stride(2), asymmetric: false }
    }

    /// The VAE encoder's: zeros right and below only.
    pub fn asymmetric(params: &Params, channels: i64) -> Downsample {
        let conv = Conv2d::new(&(params / "conv"), channels, channels, 3).stride(2).padding(0);
        Downsample { conv, asymmetric: true }
    }

    /// Halves height and width, rounding up.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.asymmetric { self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1])) } else { self.conv.forward(x) }
    }
}

/// Nearest-neighbour resizing and a 3×3 convolution.
#[derive(Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// Keeps the channels.
    pub fn new(params: &Params, channels: i64) -> Upsample {
        Upsample { conv: Conv2d::new(&(params / "conv"), channels, channels, 3) }
    }

    /// To `size` (height, width), or to twice the size.
    pub fn forward(&self, x: &Tensor, size: Option<(i64, i64)>) -> Tensor {
        let (_, _, height, width) = x.size4().expect("[N, C, H, W]");
        let doubled = (2 * height, 2 * width);
        match size.filter(|&size| size != doubled) {
            None => self.conv.forward_doubled(x),
            Some((height, width)) => self.conv.forward(&x.upsample_nearest2d([height, width], None, None)),
        }
    }
}
