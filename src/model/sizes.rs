//! The sizes of base models that are made here rather than read: for `init`, tests and benchmarks.

use super::{clip, unet, vae};
use crate::model::unet::Heads;

/// The configurations of a base model's three networks; Stable Diffusion 1.5's by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// UNet.
    pub unet: unet::Config,
    /// VAE.
    pub vae: vae::Config,
    /// Text encoder.
    pub text: clip::Config,
}

impl Sizes {
    /// A few megabytes, for pictures of 64 pixels.
    pub fn tiny(vocab_size: i64) -> Sizes {
        Sizes {
            unet: unet([32, 64, 64, 64], 4, 8, 32, 8),
            vae: vae([16, 32, 32, 32], 8),
            text: clip::Config::two_layers(vocab_size, 32),
        }
    }

    /// A fifth of Stable Diffusion 1.5's UNet.
    pub fn small() -> Sizes {
        Sizes {
            unet: unet([128, 256, 512, 512], 8, 32, 768, 32),
            vae: vae([64, 128, 256, 256], 32),
            text: clip::Config::default(),
        }
    }
}

fn unet(channels: [i64; 4], heads: i64, groups: i64, cross: i64, sample_size: i64) -> unet::Config {
    unet::Config {
        block_out_channels: channels.to_vec(),
        attention_head_dim: Heads::All(heads),
        norm_num_groups: groups,
        cross_attention_dim: cross,
        sample_size,
        ..unet::Config::default()
    }
}

fn vae(channels: [i64; 4], groups: i64) -> vae::Config {
    vae::Config { block_out_channels: channels.to_vec(), norm_num_groups: groups, ..vae::Config::default() }
}
