//! An exponential moving average of what is trained: smoother weights, for samples and exports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::native;

/// The average's settings, with the names and defaults of diffusers' `EMAModel`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The decay that is reached in the end: the average looks back over about 1/(1 - decay) updates.
    pub decay: f64,
    /// Updates during which the average only follows.
    pub update_after_step: i64,
    /// The decay rises as `1 - (1 + n/inv_gamma)^-power`, instead of as `(1 + n)/(10 + n)`.
    pub use_ema_warmup: bool,
    /// Of that rise.
    pub inv_gamma: f64,
    /// Of that rise: 2/3 for trainings of a million updates, 3/4 for fewer.
    pub power: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config { decay: 0.9999, update_after_step: 0, use_ema_warmup: false, inv_gamma: 1.0, power: 2.0 / 3.0 }
    }
}

impl Config {
    /// What is not sound: the key, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..1.0).contains(&self.decay) {
            return Err("`decay` must be at least 0 and below 1".into());
        }
        if self.update_after_step < 0 {
            return Err("`update_after_step` must be at least 0".into());
        }
        if !(self.inv_gamma > 0.0 && self.power > 0.0 && self.inv_gamma.is_finite() && self.power.is_finite()) {
            return Err("`inv_gamma` and `power` must be above 0".into());
        }
        Ok(())
    }

    /// How much of the average stays at the update number `update`, counted from 1.
    pub fn decay_at(&self, update: i64) -> f64 {
        let past = (update - self.update_after_step - 1).max(0) as f64;
        if past == 0.0 {
            return 0.0;
        }
        let rising = if self.use_ema_warmup {
            1.0 - (1.0 + past / self.inv_gamma).powf(-self.power)
        } else {
            (1.0 + past) / (10.0 + past)
        };
        rising.min(self.decay)
    }
}

/// The averages, one beside each trained tensor.
#[derive(Debug)]
pub struct Ema {
    config: Config,
    averages: BTreeMap<String, Tensor>,
    updates: i64,
}

impl Ema {
    /// Starts from `trained` as it stands.
    pub fn new(trained: &BTreeMap<String, Tensor>, config: Config) -> Ema {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), no_grad(|| tensor.detach().copy()));
        Ema { config, averages: trained.iter().map(copy).collect(), updates: 0 }
    }

    /// Follows an update of `trained`.
    pub fn update(&mut self, trained: &BTreeMap<String, Tensor>) {
        self.updates += 1;
        let weight = 1.0 - self.config.decay_at(self.updates);
        let averages: Vec<&Tensor> = self.averages.values().collect();
        native::lerp(&averages, &trained.values().collect::<Vec<_>>(), weight);
    }

    /// Updates followed so far.
    pub fn updates(&self) -> i64 {
        self.updates
    }

    /// The averages by name, to be saved; the tensors are shared.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.averages.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Takes back what [`Ema::state`] gave. The first name that is missing or misshapen is the error.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), String> {
        for (name, average) in &mut self.averages {
            let saved = state.get(name).filter(|saved| saved.size() == average.size()).ok_or_else(|| name.clone())?;
            no_grad(|| average.copy_(saved));
        }
        Ok(())
    }

    /// Takes back what [`Ema::updates`] gave.
    pub fn set_updates(&mut self, updates: i64) {
        self.updates = updates;
    }

    /// Puts the averages in the place of `trained` for as long as the guard lives. Nothing is copied.
    pub fn in_place_of<'a>(&'a self, trained: &'a BTreeMap<String, Tensor>) -> Swapped<'a> {
        let swapped = Swapped { averages: &self.averages, trained };
        swapped.swap();
        swapped
    }
}

/// As long as it lives, trained tensors hold their averages, and the averages hold what was trained.
#[derive(Debug)]
pub struct Swapped<'a> {
    averages: &'a BTreeMap<String, Tensor>,
    trained: &'a BTreeMap<String, Tensor>,
}

impl Swapped<'_> {
    fn swap(&self) {
        for (average, trained) in self.averages.values().zip(self.trained.values()) {
            // Handles to the same tensors that the layers hold.
            let (mut average, mut trained) = (average.shallow_clone(), trained.shallow_clone());
            let (average_data, trained_data) = (average.data(), trained.data());
            average.set_data(&trained_data);
            trained.set_data(&average_data);
        }
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}
