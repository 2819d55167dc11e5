//! Convolutions over pictures, and along sequences.

use tch::Tensor;

use super::params::{Init, Params};

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

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [self.stride; 2], [self.padding; 2], [1, 1], 1)
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

    /// `[N, in, L]` to `[N, out, L]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv1d(&self.weight, Some(&self.bias), 1, self.padding, 1, 1)
    }
}
