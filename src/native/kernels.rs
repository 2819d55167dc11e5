//! Kernels of our own for the CPU, and products by oneDNN, with weights that were put in order once and with others.
//!
//! A kernel is for tensors that it fits, which the `fits` functions tell; libtorch's operators do the same for all others.
//! Products with packed weights have no gradient: they are for networks that are only used.

use tch::{Device, Kind, Tensor};

use super::{autograd::filled, ffi};

/// The most frames that [`attend_frames`] takes, and its widest head.
const MOST_FRAMES: i64 = 32;
const WIDEST_HEAD: i64 = 256;
/// Multiplications from which on oneDNN's products are worth the longer way to them.
const LEAST_PRODUCT: i64 = 1 << 23;

/// Whether the kernels take `x`: float32 or bfloat16 on the CPU.
pub fn fits(x: &Tensor) -> bool {
    x.device() == Device::Cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16)
}

/// Whether [`group_norm`] takes `x` as it lies: `[N, C, H, W]`, channels innermost, and no gradient to come.
pub fn fits_group_norm(x: &Tensor) -> bool {
    fits(x) && x.dim() == 4 && !x.requires_grad() && channels_innermost(x)
}

/// Whether `x` `[N, C, H, W]` lies with its channels innermost; a picture of one pixel does.
pub fn channels_innermost(x: &Tensor) -> bool {
    x.permute([0, 2, 3, 1]).is_contiguous()
}

/// `x` `[N, C, H, W]` with its channels innermost.
pub fn with_channels_innermost(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// What a group norm is made of.
#[derive(Clone, Copy, Debug)]
pub struct GroupNormOptions<'a> {
    /// `[C]`.
    pub weight: &'a Tensor,
    /// `[C]`.
    pub bias: &'a Tensor,
    /// Groups of channels.
    pub groups: i64,
    /// Added to the variance.
    pub eps: f64,
    /// How many rows have their statistics taken together.
    pub together: i64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// GroupNorm of `x + added`, for `added` `[N / r, C]` whose rows are for r rows of `x` each. See [`fits_group_norm`].
pub fn group_norm(x: &Tensor, added: Option<&Tensor>, options: GroupNormOptions) -> Tensor {
    let GroupNormOptions { weight, bias, groups, eps, together, silu } = options;
    // SAFETY: as in `filled`; the borrowed tensors live for the call, and a missing one is null.
    filled(|out| unsafe {
        let (x, added) = (x.as_ptr(), pointer(added));
        ffi::ad_group_norm(out, x, weight.as_ptr(), bias.as_ptr(), added, groups, eps, together, silu)
    })
}

/// LayerNorm of the last axis of `x` `[B·F, P, C]`, plus each frame's row of `table` `[F, C]` where there is one.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, table: Option<&Tensor>) -> Tensor {
    let frames = table.map_or(1, |table| table.size()[0]);
    let positions = if table.is_some() { x.size()[1] } else { 1 };
    let x = x.contiguous();
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe {
        let (weight, bias) = (weight.as_ptr(), bias.as_ptr());
        ffi::ad_layer_norm(out, x.as_ptr(), weight, bias, eps, pointer(table), frames, positions)
    })
}

/// Whether [`attend_frames`] takes `x` with `heads` heads of `width` over `frames` frames.
pub fn fits_attend_frames(x: &Tensor, frames: i64, width: i64) -> bool {
    fits(x) && frames <= MOST_FRAMES && width <= WIDEST_HEAD
}

/// Self-attention over the frames of each position: `[B·F, P, 3·C]`, query, key and value side by side, to `[B·F, P, C]`.
/// Has a gradient.
pub fn attend_frames(qkv: &Tensor, frames: i64, heads: i64) -> Tensor {
    let qkv = qkv.contiguous();
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe { ffi::ad_attend_frames(out, qkv.as_ptr(), frames, heads) })
}

/// Whether oneDNN can put bf16 weights in an order of its own on this processor.
pub fn orders_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avxneconvert")
        || (std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq"));
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `x Wᵀ (+ bias)`, `[…, in]` to `[…, out]`, by the library that is faster at it on this processor. Has a first gradient.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let worth = x.numel() as i64 * weight.size()[0] >= LEAST_PRODUCT;
    if worth && x.device() == Device::Cpu && x.kind() == Kind::Float && prefers_onednn() {
        onednn_linear(x, weight, bias)
    } else {
        x.linear(weight, bias)
    }
}

/// The same by oneDNN, for float32 on the CPU.
pub fn onednn_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe { ffi::ad_linear(out, x.as_ptr(), weight.as_ptr(), pointer(bias)) })
}

fn prefers_onednn() -> bool {
    // SAFETY: takes nothing, and reads what the processor says of itself.
    tch::utils::has_mkldnn() && unsafe { ffi::ad_prefers_onednn() }
}

/// The weight of a linear layer `[out, in]` in the order that products read it in.
pub fn pack_linear(weight: &Tensor) -> Tensor {
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe { ffi::ad_pack_linear(out, weight.as_ptr()) })
}

/// `x Wᵀ + bias (+ onto)` for a packed weight.
pub fn packed_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, onto: Option<&Tensor>) -> Tensor {
    assert!(!x.requires_grad(), "packed weights have no gradient");
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe { ffi::ad_packed_linear(out, x.as_ptr(), weight.as_ptr(), pointer(bias), pointer(onto)) })
}

/// The weight of a convolution `[out, in, k, k]` in the order that it is read in for pictures of the shape of `x`.
pub fn pack_conv2d(weight: &Tensor, stride: i64, padding: i64, x: &Tensor) -> Tensor {
    let sizes = x.size();
    assert_eq!(sizes.len(), 4);
    // SAFETY: as in `group_norm`; the shim reads four sizes.
    filled(|out| unsafe { ffi::ad_pack_conv2d(out, weight.as_ptr(), stride, padding, sizes.as_ptr()) })
}

/// `x` convolved with a packed weight, plus `bias` (plus `onto`); channels innermost.
pub fn packed_conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    onto: Option<&Tensor>,
    stride: i64,
    padding: i64,
) -> Tensor {
    assert!(!x.requires_grad(), "packed weights have no gradient");
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe {
        let (bias, onto) = (pointer(bias), pointer(onto));
        ffi::ad_packed_conv2d(out, x.as_ptr(), weight.as_ptr(), bias, onto, stride, padding)
    })
}

/// What a convolution sees at each place of `x` `[N, C, H, W]`: `[N·H'·W', kernel·kernel·C]`, row by row of the patch, its
/// channels innermost.
pub fn patches(x: &Tensor, kernel: i64, stride: i64, padding: i64) -> Tensor {
    // SAFETY: as in `group_norm`.
    filled(|out| unsafe { ffi::ad_patches(out, x.as_ptr(), kernel, stride, padding) })
}

fn pointer(tensor: Option<&Tensor>) -> *const torch_sys::C_tensor {
    tensor.map_or(std::ptr::null(), |tensor| tensor.as_ptr())
}
