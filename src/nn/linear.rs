//! Linear layers, with an optional low-rank pair beside the weight.

use tch::Tensor;

use super::{
    in_kind,
    params::{Init, Params},
};
use crate::native::kernels::{linear, pack_linear, packed_linear};

/// `y = x Wᵀ + b (+ scale · up(down(x)))`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    lora: Option<LoraPair>,
}

/// `[out, in]`.
#[derive(Debug)]
enum Weight {
    Plain(Tensor),
    /// In the order that products read it in.
    Packed(Tensor),
}

impl Weight {
    fn new(params: &Params, weight: Tensor) -> Weight {
        if params.packs() { Weight::Packed(pack_linear(&weight)) } else { Weight::Plain(weight) }
    }
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
            weight: Weight::new(params, params.tensor("weight", &[out_features, in_features], init)),
            bias: bias.then(|| params.tensor("bias", &[out_features], init)),
            lora: params.lora_pair(in_features, out_features),
        }
    }

    /// The layers at `parts`, frozen and without bias, as one whose outputs lie side by side.
    pub fn joined(params: &Params, parts: &[Params], in_features: i64, out_features: i64) -> Linear {
        let weight = |part: &Params| part.tensor("weight", &[out_features, in_features], Init::FanIn(in_features));
        let weights: Vec<Tensor> = parts.iter().map(weight).collect();
        Linear { weight: Weight::new(params, Tensor::cat(&weights, 0)), bias: None, lora: None }
    }

    /// `[…, in]` to `[…, out]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let weight = match &self.weight {
            Weight::Packed(weight) => return packed_linear(x, weight, self.bias.as_ref(), None),
            Weight::Plain(weight) => in_kind(weight, kind),
        };
        let y = linear(x, &weight, self.bias.as_ref().map(|bias| in_kind(bias, kind)).as_ref());
        match &self.lora {
            None => y,
            Some(pair) => {
                let low = linear(x, &in_kind(&pair.down, kind), None);
                let delta = linear(&low, &in_kind(&pair.up, kind), None);
                if pair.scale == 1.0 { y + delta } else { y + delta * pair.scale }
            }
        }
    }
    /// The same, added to `onto` `[…, out]`.
    pub fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Packed(weight) => packed_linear(x, weight, self.bias.as_ref(), Some(onto)),
            Weight::Plain(_) => onto + self.forward(x),
        }
    }
}
