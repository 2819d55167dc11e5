//! The time embedding: sinusoids of the timestep through two linear layers.

use tch::{Kind, Tensor};

use super::Config;
use crate::nn::{Linear, Params};

/// `linear_2(SiLU(linear_1(sinusoids(t))))`.
#[derive(Debug)]
pub struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    width: i64,
    cosine_first: bool,
    freq_shift: i64,
}

impl TimeEmbedding {
    /// Sinusoids of `width`, embedded in `time_dim`.
    pub fn new(params: &Params, width: i64, time_dim: i64, config: &Config) -> TimeEmbedding {
        TimeEmbedding {
            linear_1: Linear::new(&(params / "linear_1"), width, time_dim),
            linear_2: Linear::new(&(params / "linear_2"), time_dim, time_dim),
            width,
            cosine_first: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
        }
    }

    /// `timesteps` `[B]`, whole or fractional, to `[B, time_dim]` in `kind`; the sinusoids are computed in float32.
    pub fn forward(&self, timesteps: &Tensor, kind: Kind) -> Tensor {
        let table = sinusoids(timesteps, self.width, self.cosine_first, self.freq_shift);
        self.linear_2.forward(&self.linear_1.forward(&table.to_kind(kind)).silu())
    }
}

/// `[sin(t·ω) | cos(t·ω)]`, or cosines first, with `ω_i = exp(-ln(10000) · i / (width/2 - freq_shift))`; `[B, width]` float32.
pub fn sinusoids(timesteps: &Tensor, width: i64, cosine_first: bool, freq_shift: i64) -> Tensor {
    let half = width / 2;
    let exponent =
        Tensor::arange(half, (Kind::Float, timesteps.device())) * -(10_000f64.ln()) / (half - freq_shift) as f64;
    let angle = timesteps.to_kind(Kind::Float).unsqueeze(1) * exponent.exp().unsqueeze(0);
    let (sin, cos) = (angle.sin(), angle.cos());
    if cosine_first { Tensor::cat(&[cos, sin], 1) } else { Tensor::cat(&[sin, cos], 1) }
}
