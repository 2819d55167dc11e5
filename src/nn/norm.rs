//! Group and layer normalisation.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::params::{Init, Params};
use crate::native::{
    group_norm_silu,
    kernels::{self, GroupNormOptions},
};

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
    /// Whether the CPU's kernel is used where it fits: in networks that are only used, which no gradient goes through.
    own: bool,
}

impl GroupNorm {
    /// Per-frame statistics over `channels / groups` channels.
    pub fn new(params: &Params, groups: i64, channels: i64, eps: f64) -> GroupNorm {
        GroupNorm::scoped(params, groups, channels, eps, NormScope::Frame)
    }

    /// Statistics over `scope`.
    pub fn scoped(params: &Params, groups: i64, channels: i64, eps: f64, scope: NormScope) -> GroupNorm {
        GroupNorm {
            weight: params.norm_tensor("weight", &[channels], Init::Ones),
            bias: params.norm_tensor("bias", &[channels], Init::Zeros),
            groups,
            eps,
            scope,
            own: params.packs(),
        }
    }

    /// `x` is `[B·F, C, H, W]`, row `b·F + f`; `frames` is F.
    pub fn forward(&self, x: &Tensor, frames: i64) -> Tensor {
        if self.has_kernel(x) {
            return kernels::group_norm(x, None, self.options(frames, false));
        }
        self.within_scope(x, frames, |x| {
            affine(x, [&self.weight, &self.bias], |x, weight, bias| {
                x.group_norm(self.groups, Some(weight), Some(bias), self.eps, true)
            })
        })
    }

    /// SiLU of the same; keeps less for a backward pass than the two by themselves.
    pub fn forward_silu(&self, x: &Tensor, frames: i64) -> Tensor {
        if self.has_kernel(x) {
            return kernels::group_norm(x, None, self.options(frames, true));
        }
        self.within_scope(x, frames, |x| {
            affine(x, [&self.weight, &self.bias], |x, weight, bias| {
                group_norm_silu(x, weight, bias, self.groups, self.eps)
            })
        })
    }

    /// The same of `x` plus each clip's row of `added` `[B, C]`.
    pub fn forward_silu_of_sum(&self, x: &Tensor, added: &Tensor, frames: i64) -> Tensor {
        if self.has_kernel(x) {
            return kernels::group_norm(x, Some(added), self.options(frames, true));
        }
        self.forward_silu(&(x + per_frame(added, frames)), frames)
    }

    fn has_kernel(&self, x: &Tensor) -> bool {
        self.own && kernels::fits_group_norm(x)
    }

    fn options(&self, frames: i64, silu: bool) -> GroupNormOptions<'_> {
        let together = if self.scope == NormScope::Clip { frames } else { 1 };
        GroupNormOptions { weight: &self.weight, bias: &self.bias, groups: self.groups, eps: self.eps, together, silu }
    }

    /// `normalise` on rows whose statistics are taken together.
    fn within_scope(&self, x: &Tensor, frames: i64, normalise: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        if self.scope == NormScope::Frame || frames == 1 {
            // libtorch's way back through channels that lie innermost writes to gradients that nobody asked for, and crashes.
            return normalise(&x.contiguous());
        }
        let (rows, channels, height, width) = x.size4().expect("[B·F, C, H, W]");
        let clips_bcfhw = x.view([rows / frames, frames, channels, height, width]).transpose(1, 2);
        normalise(&clips_bcfhw.contiguous()).transpose(1, 2).reshape([rows, channels, height, width])
    }
}

/// `[B, C]` to `[B·F, C, 1, 1]`: each clip's row for each of its frames.
fn per_frame(rows: &Tensor, frames: i64) -> Tensor {
    let (clips, channels) = rows.size2().expect("[B, C]");
    rows.view([clips, 1, channels]).expand([clips, frames, channels], false).reshape([clips * frames, channels, 1, 1])
}

/// A norm in the kind of `x` with the kinds of weight and bias that its kernels take. Those of the CPU take float32 beside any
/// `x`. Those of CUDA take the kind of `x` only, to which frozen ones are rounded; trained ones must not be, whose updates are
/// smaller than what bf16 tells apart: there the norm is float32.
fn affine(x: &Tensor, [weight, bias]: [&Tensor; 2], norm: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor) -> Tensor {
    let kind = x.kind();
    if weight.kind() == kind || (weight.kind() == Kind::Float && !x.device().is_cuda()) {
        return norm(x, weight, bias);
    }
    if weight.requires_grad() {
        return norm(&x.to_kind(Kind::Float), weight, bias).to_kind(kind);
    }
    norm(x, &weight.to_kind(kind), &bias.to_kind(kind))
}

/// LayerNorm over the last axis, eps 1e-5.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    /// As in [`GroupNorm`].
    own: bool,
}

impl LayerNorm {
    /// Over a last axis of `features`.
    pub fn new(params: &Params, features: i64) -> LayerNorm {
        LayerNorm {
            weight: params.norm_tensor("weight", &[features], Init::Ones),
            bias: params.norm_tensor("bias", &[features], Init::Zeros),
            own: params.packs(),
        }
    }

    /// `[…, features]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.has_kernel(x) {
            return kernels::layer_norm(x, &self.weight, &self.bias, 1e-5, None);
        }
        affine(x, [&self.weight, &self.bias], |x, weight, bias| {
            x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, true)
        })
    }
    /// The length of the last axis.
    pub fn features(&self) -> i64 {
        self.weight.size()[0]
    }

    /// The same of `x` `[B·F, P, features]`, plus each frame's row of `table` `[F, features]`.
    pub fn forward_placed(&self, x: &Tensor, table: &Tensor) -> Tensor {
        if self.has_kernel(x) {
            return kernels::layer_norm(x, &self.weight, &self.bias, 1e-5, Some(table));
        }
        let (rows, positions, features) = x.size3().expect("[B·F, P, C]");
        let frames = table.size()[0];
        let normed = self.forward(x).view([rows / frames, frames, positions, features]);
        (&normed + table.to_kind(normed.kind()).unsqueeze(1)).view([rows, positions, features])
    }

    fn has_kernel(&self, x: &Tensor) -> bool {
        self.own && kernels::fits(x)
    }
}
