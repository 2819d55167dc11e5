//! Learning-rate schedules of diffusers' `get_scheduler`, as plain functions of the step. They know no optimizer.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of a schedule, by diffusers' name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The base rate throughout; there is no warm-up.
    #[default]
    Constant,
    /// Up linearly, then the base rate.
    ConstantWithWarmup,
    /// Up linearly, then down linearly to 0.
    Linear,
    /// Up linearly, then down half a cosine to 0.
    Cosine,
    /// Up linearly, then `cycles` times half a cosine, each from the base rate.
    CosineWithRestarts,
    /// Up linearly, then down to `lr_end` by a power of what is left.
    Polynomial,
}

/// A schedule: how many steps of which shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub kind: Kind,
    /// Steps of rising rate.
    pub warmup_steps: i64,
    /// Steps in all, warm-up included.
    pub total_steps: i64,
    /// Restarts of [`Kind::CosineWithRestarts`].
    pub cycles: f64,
    /// Exponent of [`Kind::Polynomial`].
    pub power: f64,
    /// Final rate of [`Kind::Polynomial`].
    pub lr_end: f64,
}

impl Schedule {
    /// A schedule with diffusers' defaults: one cycle, power 1, final rate 1e-7.
    pub fn new(kind: Kind, warmup_steps: i64, total_steps: i64) -> Self {
        Self { kind, warmup_steps, total_steps, cycles: 1.0, power: 1.0, lr_end: 1e-7 }
    }

    /// Says what a schedule asks for that it would not do.
    ///
    /// # Errors
    /// A sentence for the user: a warm-up that `constant` ignores, one longer than the training, or an end above the start.
    pub fn check(&self, base: f64) -> Result<(), String> {
        let Self { kind, warmup_steps, total_steps, .. } = *self;
        if warmup_steps < 0 || total_steps < 1 {
            return Err(format!("{warmup_steps} warm-up steps of {total_steps} cannot be scheduled"));
        }
        if kind == Kind::Constant && warmup_steps > 0 {
            return Err(format!(
                "`constant` has no warm-up, and {warmup_steps} steps are asked for; use `constant_with_warmup`"
            ));
        }
        if warmup_steps > total_steps {
            return Err(format!("the warm-up of {warmup_steps} steps is longer than the training, {total_steps}"));
        }
        if kind == Kind::Polynomial && self.lr_end >= base {
            return Err(format!("`polynomial` falls to {:e}, which is not below the base rate {base:e}", self.lr_end));
        }
        if kind == Kind::CosineWithRestarts && self.cycles < 1.0 {
            return Err(format!("{} cycles are less than one", self.cycles));
        }
        Ok(())
    }

    /// The rate of the optimizer step number `step`, counted from 0, for the base rate `base`.
    pub fn lr(&self, base: f64, step: i64) -> f64 {
        if self.kind == Kind::Constant {
            return base;
        }
        if step < self.warmup_steps {
            return base * (step as f64 / self.warmup_steps.max(1) as f64);
        }
        let decay_steps = (self.total_steps - self.warmup_steps).max(1) as f64;
        let progress = (step - self.warmup_steps) as f64 / decay_steps;
        match self.kind {
            Kind::Constant | Kind::ConstantWithWarmup => base,
            Kind::Linear => base * ((self.total_steps - step) as f64 / decay_steps).max(0.0),
            Kind::Cosine => base * half_cosine(progress),
            Kind::CosineWithRestarts if progress >= 1.0 => 0.0,
            Kind::CosineWithRestarts => base * half_cosine((self.cycles * progress) % 1.0),
            Kind::Polynomial if step > self.total_steps => self.lr_end,
            Kind::Polynomial => (base - self.lr_end) * (1.0 - progress).max(0.0).powf(self.power) + self.lr_end,
        }
    }
}

/// From 1 at 0 to 0 at 1. Past 1 it rises again, as diffusers' `cosine` does.
fn half_cosine(progress: f64) -> f64 {
    (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
}
