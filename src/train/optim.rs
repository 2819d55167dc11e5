//! AdamW over a model's trained tensors, and gradient clipping.

pub mod blockwise;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use self::blockwise::Group;
use crate::native::{self, AdamWStep};

/// Hyper-parameters, with the official keys and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Decoupled weight decay, on every trained tensor.
    pub adam_weight_decay: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Moments in 8 bits for tensors of at least 4096 values: 2 bytes a parameter in the place of 8.
    pub use_8bit_adam: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { adam_beta1: 0.9, adam_beta2: 0.999, adam_weight_decay: 1e-2, adam_epsilon: 1e-8, use_8bit_adam: false }
    }
}

/// `torch.optim.AdamW`, fused; what has its moments in 8 bits is updated in groups.
#[derive(Debug)]
pub struct AdamW {
    config: Config,
    /// All trained tensors.
    params: Vec<Tensor>,
    entries: Vec<Entry>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
}

impl AdamW {
    /// Zero moments for every tensor of `trained`; the tensors themselves are shared, and updated in place.
    pub fn new(trained: &BTreeMap<String, Tensor>, config: Config) -> AdamW {
        let params = trained.values().map(Tensor::shallow_clone).collect();
        let in_8_bits = |tensor: &Tensor| config.use_8bit_adam && tensor.numel() as i64 >= blockwise::SMALLEST;
        let (coarse, fine): (Vec<_>, Vec<_>) = trained.iter().partition(|(_, tensor)| in_8_bits(tensor));
        let entry = |(name, param): (&String, &Tensor)| Entry {
            name: name.clone(),
            exp_avg: no_grad(|| param.zeros_like()),
            exp_avg_sq: no_grad(|| param.zeros_like()),
            step: Tensor::zeros([], (Kind::Float, param.device())),
            param: param.shallow_clone(),
        };
        AdamW { config, params, entries: fine.into_iter().map(entry).collect(), groups: Group::all(coarse) }
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        self.params.iter_mut().for_each(Tensor::zero_grad);
    }

    /// Scales all gradients together so that their L2 norm is at most `max_norm`; gives the norm before that.
    pub fn clip_grad_norm(&self, max_norm: f64) -> f64 {
        self.unscale_and_clip(1.0, max_norm)
    }

    /// The same for gradients of a loss that was multiplied by `scale`; gives the norm of those of the loss itself.
    pub fn unscale_and_clip(&self, scale: f64, max_norm: f64) -> f64 {
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).filter(Tensor::defined).collect();
        let grads: Vec<&Tensor> = grads.iter().collect();
        let norm = native::total_norm(&grads) / scale;
        let factor = (max_norm / (norm + 1e-6)).min(1.0) / scale;
        if factor != 1.0 {
            native::scale(&grads, factor);
        }
        norm
    }

    /// One update at learning rate `lr`. A tensor that no loss has reached yet keeps its value and moments; one that this loss did not
    /// reach, and an earlier one did, has a gradient of zero where one process trains alone.
    pub fn step(&mut self, lr: f64) {
        let Config { adam_beta1, adam_beta2, adam_weight_decay, adam_epsilon, .. } = self.config;
        let step =
            AdamWStep { lr, beta1: adam_beta1, beta2: adam_beta2, weight_decay: adam_weight_decay, eps: adam_epsilon };
        for group in &mut self.groups {
            group.step(step);
        }
        let (entries, grads): (Vec<&Entry>, Vec<Tensor>) = self.with_gradients().unzip();
        let column = |field: fn(&Entry) -> &Tensor| entries.iter().map(|entry| field(entry)).collect::<Vec<_>>();
        native::fused_adamw(
            &column(|entry| &entry.param),
            &grads.iter().collect::<Vec<_>>(),
            &column(|entry| &entry.exp_avg),
            &column(|entry| &entry.exp_avg_sq),
            &column(|entry| &entry.step),
            step,
        );
    }

    /// Moments and counters by name, to be saved; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let parts = |entry: &Entry| {
            [("exp_avg", &entry.exp_avg), ("exp_avg_sq", &entry.exp_avg_sq), ("step", &entry.step)]
                .map(|(part, tensor)| (format!("{}.{part}", entry.name), tensor.shallow_clone()))
        };
        self.entries.iter().flat_map(parts).chain(self.groups.iter().flat_map(Group::state)).collect()
    }

    /// Takes back what [`AdamW::state`] gave. The first name that is missing or of another shape is the error.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), String> {
        // The tensors that `state` gives are those of the optimizer.
        for (name, mut tensor) in self.state() {
            let fits = |saved: &&Tensor| saved.size() == tensor.size() && saved.kind() == tensor.kind();
            let saved = state.get(&name).filter(fits).ok_or(name)?;
            no_grad(|| tensor.copy_(saved));
        }
        Ok(())
    }

    fn with_gradients(&self) -> impl Iterator<Item = (&Entry, Tensor)> {
        self.entries.iter().map(|entry| (entry, entry.param.grad())).filter(|(_, grad)| grad.defined())
    }
}
