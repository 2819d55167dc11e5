//! DDIM (Song et al. 2021, equation 12) with η = 0: deterministic.

use tch::Tensor;

use super::schedule::{NoiseSchedule, PredictionType};

/// A sampler of a fixed number of steps.
#[derive(Debug)]
pub struct Ddim<'a> {
    schedule: &'a NoiseSchedule,
    timesteps: Vec<i64>,
}

impl<'a> Ddim<'a> {
    /// `steps` steps over `schedule`; at least one and at most its number of timesteps.
    pub fn new(schedule: &'a NoiseSchedule, steps: i64) -> Ddim<'a> {
        Ddim { schedule, timesteps: schedule.timesteps(steps) }
    }

    /// The timesteps, descending.
    pub fn timesteps(&self) -> &[i64] {
        &self.timesteps
    }

    /// From noise to a sample: `predict(x, t)` is the network's output for `x` at timestep `t`; `after(i)` is told when
    /// step i (from 0) is done, and stops the sampler with its error.
    pub fn sample<E>(
        &self,
        noise: Tensor,
        mut predict: impl FnMut(&Tensor, i64) -> Tensor,
        mut after: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let mut x = noise;
        for (index, &timestep) in self.timesteps.iter().enumerate() {
            let output = predict(&x, timestep);
            x = self.step(&x, &output, timestep);
            after(index)?;
        }
        Ok(x)
    }

    /// One step down from `timestep`. The step's length does not depend on the spacing, as in diffusers.
    pub fn step(&self, x: &Tensor, output: &Tensor, timestep: i64) -> Tensor {
        let config = self.schedule.config();
        let previous = timestep - config.num_train_timesteps / self.timesteps.len() as i64;
        let (alpha, alpha_previous) = (self.schedule.alpha_cumprod(timestep), self.schedule.alpha_cumprod(previous));
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (clean, epsilon) = match config.prediction_type {
            PredictionType::Epsilon => ((x - output * noise) / signal, output.shallow_clone()),
            PredictionType::VPrediction => (x * signal - output * noise, output * signal + x * noise),
        };
        let clean = if config.clip_sample { clean.clamp(-1.0, 1.0) } else { clean };
        clean * alpha_previous.sqrt() + epsilon * (1.0 - alpha_previous).sqrt()
    }
}
