//! AutoencoderKL: pictures to latents and back. Frames are independent pictures here.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::resnet::{Downsample, Options, ResnetBlock, Upsample};
use crate::native::Shared;
use crate::nn::{Conv2d, GroupNorm, Linear, NormScope, Params, attend};

/// `vae/config.json`, with Stable Diffusion 1.5's values as defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Channels of a picture.
    pub in_channels: i64,
    /// Channels of a reconstruction.
    pub out_channels: i64,
    /// Channels per level, highest resolution first.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Groups of every norm.
    pub norm_num_groups: i64,
    /// Latents are multiplied by this before they are diffused.
    pub scaling_factor: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
        }
    }
}

impl Config {
    /// What cannot be built, and why.
    pub fn check(&self) -> Result<(), String> {
        let groups = self.norm_num_groups;
        if self.block_out_channels.is_empty() || self.block_out_channels.len() > 8 {
            return Err("`block_out_channels` must name 1 to 8 levels".into());
        }
        if groups < 1 || self.block_out_channels.iter().any(|&width| width < 1 || width % groups != 0) {
            return Err(format!("`norm_num_groups: {groups}` does not divide {:?}", self.block_out_channels));
        }
        if self.in_channels != 3 || self.out_channels != 3 {
            return Err("`in_channels` and `out_channels` must be 3: pictures are RGB".into());
        }
        if self.latent_channels < 1
            || self.layers_per_block < 1
            || !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0)
        {
            return Err("`latent_channels`, `layers_per_block` and `scaling_factor` must be above 0".into());
        }
        Ok(())
    }

    /// Pixels per latent, along each side.
    pub fn downscale(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// The autoencoder.
#[derive(Debug)]
pub struct Vae {
    encoder: Encoder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    config: Config,
}

/// The Gaussian that the encoder gives, `[N, latent, h, w]` each.
#[derive(Debug)]
pub struct Posterior {
    /// Mean.
    pub mean: Tensor,
    /// Logarithm of the variance, clamped to [-30, 20].
    pub logvar: Tensor,
}

impl Posterior {
    /// `mean + std · noise`, for `noise` of the same shape.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + (&self.logvar * 0.5).exp() * noise
    }
}

// SAFETY: tensors that only libtorch reads, and locks around the forms of weights.
unsafe impl Shared for Vae {}

impl Vae {
    /// Builds both halves.
    pub fn new(params: &Params, config: &Config) -> Vae {
        let latent = config.latent_channels;
        Vae {
            encoder: Encoder::new(&(params / "encoder"), config),
            quant_conv: Conv2d::new(&(params / "quant_conv"), 2 * latent, 2 * latent, 1),
            post_quant_conv: Conv2d::new(&(params / "post_quant_conv"), latent, latent, 1),
            decoder: Decoder::new(&(params / "decoder"), config),
            config: config.clone(),
        }
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What its weights are kept in.
    pub fn kind(&self) -> Kind {
        self.post_quant_conv.kind()
    }

    /// Pictures `[N, 3, H, W]` in [-1, 1] to the distribution of their latents, not yet scaled.
    pub fn encode(&self, pixels: &Tensor) -> Posterior {
        let moments = self.quant_conv.forward(&self.encoder.forward(pixels)).chunk(2, 1);
        Posterior { mean: moments[0].shallow_clone(), logvar: moments[1].clamp(-30.0, 20.0) }
    }

    /// Unscaled latents `[N, latent, h, w]` to pictures, about [-1, 1].
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        self.decoder.forward(&self.post_quant_conv.forward(latents))
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock>, Option<Downsample>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(params: &Params, config: &Config) -> Encoder {
        let widths = &config.block_out_channels;
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let level = |(level, &width): (usize, &i64)| {
            let block = params / "down_blocks" / level;
            let resnet = |index: i64| {
                let inputs = if index == 0 { widths[level.saturating_sub(1)] } else { width };
                ResnetBlock::new(&(&block / "resnets" / index), inputs, width, resnet_options(config))
            };
            let resnets = (0..config.layers_per_block).map(resnet).collect();
            let last = level + 1 == widths.len();
            (resnets, (!last).then(|| Downsample::asymmetric(&(&block / "downsamplers" / 0), width)))
        };
        Encoder {
            conv_in: Conv2d::new(&(params / "conv_in"), config.in_channels, first, 3),
            down_blocks: widths.iter().enumerate().map(level).collect(),
            mid_block: MidBlock::new(&(params / "mid_block"), last, config),
            conv_norm_out: norm(&(params / "conv_norm_out"), last, config),
            conv_out: Conv2d::new(&(params / "conv_out"), last, 2 * config.latent_channels, 3),
        }
    }

    fn forward(&self, pixels: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(pixels);
        for (resnets, downsampler) in &self.down_blocks {
            for resnet in resnets {
                h = resnet.forward(&h, None, 1);
            }
            if let Some(downsampler) = downsampler {
                h = downsampler.forward(&h);
            }
        }
        let h = self.mid_block.forward(&h);
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h, 1))
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(params: &Params, config: &Config) -> Decoder {
        let widths: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (widths[0], widths[widths.len() - 1]);
        let level = |(level, &width): (usize, &i64)| {
            let block = params / "up_blocks" / level;
            let resnet = |index: i64| {
                let inputs = if index == 0 { widths[level.saturating_sub(1)] } else { width };
                ResnetBlock::new(&(&block / "resnets" / index), inputs, width, resnet_options(config))
            };
            let resnets = (0..=config.layers_per_block).map(resnet).collect();
            let last = level + 1 == widths.len();
            (resnets, (!last).then(|| Upsample::new(&(&block / "upsamplers" / 0), width)))
        };
        Decoder {
            conv_in: Conv2d::new(&(params / "conv_in"), config.latent_channels, first, 3),
            mid_block: MidBlock::new(&(params / "mid_block"), first, config),
            up_blocks: widths.iter().enumerate().map(level).collect(),
            conv_norm_out: norm(&(params / "conv_norm_out"), last, config),
            conv_out: Conv2d::new(&(params / "conv_out"), last, config.out_channels, 3),
        }
    }

    fn forward(&self, latents: &Tensor) -> Tensor {
        let mut h = self.mid_block.forward(&self.conv_in.forward(latents));
        for (resnets, upsampler) in &self.up_blocks {
            for resnet in resnets {
                h = resnet.forward(&h, None, 1);
            }
            if let Some(upsampler) = upsampler {
                h = upsampler.forward(&h, None);
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h, 1))
    }
}

/// Residual block, attention over all positions, residual block.
#[derive(Debug)]
struct MidBlock {
    first: ResnetBlock,
    attention: PictureAttention,
    last: ResnetBlock,
}

impl MidBlock {
    fn new(params: &Params, width: i64, config: &Config) -> MidBlock {
        let resnet = |index: i64| ResnetBlock::new(&(params / "resnets" / index), width, width, resnet_options(config));
        MidBlock {
            first: resnet(0),
            attention: PictureAttention::new(&(params / "attentions" / 0), width, config),
            last: resnet(1),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.last.forward(&self.attention.forward(&self.first.forward(x, None, 1)), None, 1)
    }
}

/// One head as wide as the feature map, all projections with bias, softmax in float32.
#[derive(Debug)]
struct PictureAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl PictureAttention {
    fn new(params: &Params, width: i64, config: &Config) -> PictureAttention {
        let linear = |path: Params| Linear::new(&path, width, width);
        PictureAttention {
            group_norm: norm(&(params / "group_norm"), width, config),
            to_q: linear(params / "to_q"),
            to_k: linear(params / "to_k"),
            to_v: linear(params / "to_v"),
            to_out: linear(params / "to_out" / 0),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (rows, channels, height, width) = x.size4().expect("[N, C, H, W]");
        let tokens = self.group_norm.forward(x, 1).flatten(2, 3).transpose(1, 2).contiguous();
        let project = |layer: &Linear| layer.forward(&tokens).unsqueeze(1).to_kind(Kind::Float);
        let attended = attend(&project(&self.to_q), &project(&self.to_k), &project(&self.to_v), false);
        let attended = attended.squeeze_dim(1).to_kind(x.kind());
        let out = self.to_out.forward_onto(&attended, &x.flatten(2, 3).transpose(1, 2));
        out.transpose(1, 2).reshape([rows, channels, height, width])
    }
}

fn resnet_options(config: &Config) -> Options {
    Options { groups: config.norm_num_groups, eps: 1e-6, time_dim: None, norm_scope: NormScope::Frame }
}

fn norm(params: &Params, channels: i64, config: &Config) -> GroupNorm {
    GroupNorm::new(params, config.norm_num_groups, channels, 1e-6)
}
