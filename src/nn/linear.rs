//! Linear layers, with an optional low-rank pair beside the weight.

use tch::Tensor;

use super::params::{Init, Params};

/// `y = x Wᵀ + b (+ scale · up(down(x)))`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    lora: Option<LoraPair>,
}

/// A trained low-rank delta of a linear layer.
#[derive(Debug)]
pub struct LoraPair {
    /// `[rank, in]`.
    pub down: Tensor,
    /// `[out, rank]`.
    pub up: Tensor,
    /// Multiplies the delta.
    pub scale: f64,
}

impl Linear {
    /// A layer with bias: weight `[out, in]`, bias `[out]`.
    pub fn new(params: &Params, in_features: i64, out_features: i64) -> Linear {
        Linear::with_init(params, in_features, out_features, true, Init::FanIn(in_features))
    }

    /// A layer without bias.
    pub fn without_bias(params: &Params, in_features: i64, out_features: i64) -> Linear {
        Linear::with_init(params, in_features, out_features, false, Init::FanIn(in_features))
    }

    /// A layer with bias whose new weight and bias start as `init`.
    pub fn with_init(params: &Params, in_features: i64, out_features: i64, bias: bool, init: Init) -> Linear {
        Linear {
            weight: params.tensor("weight", &[out_features, in_features], init),
            bias: bias.then(|| params.tensor("bias", &[out_features], init)),
            lora: params.lora_pair(in_features, out_features),
        }
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        match &self.lora {
            None => y,
            Some(pair) => {
                let delta = x.linear(&pair.down, None::<&Tensor>).linear(&pair.up, None::<&Tensor>);
                if pair.scale == 1.0 { y + delta } else { y + delta * pair.scale }
            }
        }
    }
}
