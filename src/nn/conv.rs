//! Convolutions over pictures, and along sequences.

use tch::Tensor;

use super::{
    in_kind,
    params::{Init, Params},
};
use crate::native::frozen_conv2d;

/// A square-kernel convolution with bias.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// Weight `[out, in, kernel, kernel]`, bias `[out]`, stride 1, padding that keeps the size.
    pub fn new(params: &Params, in_channels: i64, out_channels: i64, kernel: i64) -> Conv2d {
        let init = Init::FanIn(in_channels * kernel * kernel);
        Conv2d {
            weight: params.tensor("weight", &[out_channels, in_channels, kernel, kernel], init),
            bias: params.tensor("bias", &[out_channels], init),
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// Another stride.
    pub fn stride(self, stride: i64) -> Conv2d {
        Conv2d { stride, ..self }
    }

    /// Another symmetric padding.
    pub fn padding(self, padding: i64) -> Conv2d {
        Conv2d { padding, ..self }
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (in_kind(&self.weight, x.kind()), in_kind(&self.bias, x.kind()));
        if weight.requires_grad() || bias.requires_grad() || !x.requires_grad() {
            return x.conv2d(&weight, Some(&bias), [self.stride; 2], [self.padding; 2], [1, 1], 1);
        }
        frozen_conv2d(x, &weight, &bias, self.stride, self.padding)
    }
}

/// A convolution along sequences, of odd width, with bias; zeros before the first element and after the last.
#[derive(Debug)]
pub struct Conv1d {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
}

impl Conv1d {
    /// Weight `[out, in, kernel]`, bias `[out]`; the length stays.
    pub fn new(params: &Params, in_channels: i64, out_channels: i64, kernel: i64) -> Conv1d {
        let init = Init::FanIn(in_channels * kernel);
        Conv1d {
            weight: params.tensor("weight", &[out_channels, in_channels, kernel], init),
            bias: params.tensor("bias", &[out_channels], init),
            padding: kernel / 2,
        }
    }

    /// `[N, in, L]` to `[N, out, L]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (in_kind(&self.weight, x.kind()), in_kind(&self.bias, x.kind()));
        x.conv1d(&weight, Some(&bias), 1, self.padding, 1, 1)
    }
}
