//! Random weights that cost no more than the memory they fill: for benchmarks, where values only have to be ordinary.

use std::{collections::BTreeMap, rc::Rc};

use tch::{Device, Kind, Tensor, no_grad};

use crate::{nn::hollow, weights::NamedTensors};

/// Numbers in the pool. They are laid out again and again, scaled: drawing 1.3 billion would take a minute.
const DRAWN: i64 = 1 << 20;

/// A supply of normal random numbers, in the kind and on the device that the weights will have.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Tensor>);

impl Pool {
    /// The same seed gives the same weights.
    pub fn new(seed: i64, device: Device, kind: Kind) -> Pool {
        tch::manual_seed(seed);
        let drawn = Tensor::randn([DRAWN], (Kind::Float, Device::Cpu));
        Pool(Rc::new(drawn.to_kind(kind).to_device(device)))
    }

    /// A tensor for each name and shape of `outline`, made when it is taken.
    pub fn fill(&self, outline: BTreeMap<String, Vec<i64>>) -> NamedTensors {
        let mut tensors = NamedTensors::new();
        for (name, shape) in outline {
            tensors.insert(name.clone(), hollow(&shape));
            let (pool, is_weight) = (self.clone(), name.ends_with("weight"));
            tensors.change(&name, move |shaped| pool.tensor(&shaped.size(), is_weight));
        }
        tensors
    }

    /// What keeps activations finite through many layers: gains of one, offsets of zero, and matrices whose rows have a norm of 0.7.
    fn tensor(&self, shape: &[i64], is_weight: bool) -> Tensor {
        let options = (self.0.kind(), self.0.device());
        match shape {
            [_] if is_weight => Tensor::ones(shape, options),
            [_] => Tensor::zeros(shape, options),
            _ => self.matrix(shape),
        }
    }

    fn matrix(&self, shape: &[i64]) -> Tensor {
        let inputs: i64 = shape[1..].iter().product();
        let values: i64 = shape.iter().product();
        no_grad(|| {
            let scaled = &*self.0 * (0.7 / (inputs as f64).sqrt());
            let out = Tensor::empty([values], (self.0.kind(), self.0.device()));
            for start in (0..values).step_by(DRAWN as usize) {
                let count = DRAWN.min(values - start);
                out.narrow(0, start, count).copy_(&scaled.narrow(0, 0, count));
            }
            out.view(shape)
        })
    }
}
