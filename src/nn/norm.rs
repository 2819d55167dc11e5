//! Group and layer normalisation.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::params::{Init, Params};

/// Over what a GroupNorm of a video model takes its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormScope {
    /// Each frame by itself.
    Frame,
    /// All frames of a clip together.
    Clip,
}

/// GroupNorm over `[B·F, C, H, W]`.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
    scope: NormScope,
}

impl GroupNorm {
    /// Per-frame statistics over `channels / groups` channels.
    pub fn new(params: &Params, groups: i64, channels: i64, eps: f64) -> GroupNorm {
        GroupNorm::scoped(params, groups, channels, eps, NormScope::Frame)
    }

    /// Statistics over `scope`.
    pub fn scoped(params: &Params, groups: i64, channels: i64, eps: f64, scope: NormScope) -> GroupNorm {
        GroupNorm {
            weight: params.tensor("weight", &[channels], Init::Ones),
            bias: params.tensor("bias", &[channels], Init::Zeros),
            groups,
            eps,
            scope,
        }
    }

    /// `x` is `[B·F, C, H, W]`, row `b·F + f`; `frames` is F.
    pub fn forward(&self, x: &Tensor, frames: i64) -> Tensor {
        if self.scope == NormScope::Frame || frames == 1 {
            return self.normalise(x);
        }
        let (rows, channels, height, width) = x.size4().expect("[B·F, C, H, W]");
        let clips_bcfhw = x.view([rows / frames, frames, channels, height, width]).transpose(1, 2);
        self.normalise(&clips_bcfhw.contiguous()).transpose(1, 2).reshape([rows, channels, height, width])
    }

    fn normalise(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (fitting(&self.weight, x), fitting(&self.bias, x));
        x.group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true)
    }
}

/// A parameter in the kind of `x`. Float32 ones stay: kernels take them beside any `x`, and a trained one must not be rounded.
fn fitting(parameter: &Tensor, x: &Tensor) -> Tensor {
    if parameter.kind() == Kind::Float { parameter.shallow_clone() } else { parameter.to_kind(x.kind()) }
}

/// LayerNorm over the last axis, eps 1e-5.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Over a last axis of `features`.
    pub fn new(params: &Params, features: i64) -> LayerNorm {
        LayerNorm {
            weight: params.tensor("weight", &[features], Init::Ones),
            bias: params.tensor("bias", &[features], Init::Zeros),
        }
    }

    /// `[…, features]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (fitting(&self.weight, x), fitting(&self.bias, x));
        x.layer_norm(self.weight.size(), Some(&weight), Some(&bias), 1e-5, true)
    }
}
