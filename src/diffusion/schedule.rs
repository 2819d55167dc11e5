//! How much noise there is at each timestep.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Official `noise_scheduler_kwargs`, with diffusers' names. The defaults are AnimateDiff's inference YAML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Timesteps of the training process.
    pub num_train_timesteps: i64,
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// How β grows between them.
    pub beta_schedule: BetaSchedule,
    /// Added to `leading` timesteps.
    pub steps_offset: i64,
    /// Whether the predicted clean sample is clamped to [-1, 1].
    pub clip_sample: bool,
    /// ᾱ after the last step: 1, or that of timestep 0.
    pub set_alpha_to_one: bool,
    /// Which timesteps a sampler visits.
    pub timestep_spacing: TimestepSpacing,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Moves and stretches √ᾱ so that the last timestep is noise alone, and the first stays as it is (Lin et al. 2023, "Common
    /// Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
    pub rescale_betas_zero_snr: bool,
}

/// The part of a [`Config`] that a model is trained on; the rest is the sampler's choice. What is absent is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Timesteps of the training process.
    pub num_train_timesteps: Option<i64>,
    /// First β.
    pub beta_start: Option<f64>,
    /// Last β.
    pub beta_end: Option<f64>,
    /// How β grows between them.
    pub beta_schedule: Option<BetaSchedule>,
    /// What the network predicts.
    pub prediction_type: Option<PredictionType>,
    /// Whether the last timestep is noise alone.
    pub rescale_betas_zero_snr: Option<bool>,
}

/// The growth of β.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// β grows linearly: the motion stage.
    Linear,
    /// √β grows linearly: Stable Diffusion's own, and the image stage.
    ScaledLinear,
}

/// The timesteps a sampler of n steps visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestepSpacing {
    /// Multiples of 1000/n, plus `steps_offset`: the official one.
    Leading,
    /// From 0 to 999 evenly, both included.
    Linspace,
    /// From 999 down in steps of 1000/n.
    Trailing,
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity `√ᾱ ε − √(1−ᾱ) x₀`.
    VPrediction,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::Linear,
            steps_offset: 1,
            clip_sample: false,
            set_alpha_to_one: true,
            timestep_spacing: TimestepSpacing::Leading,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Config {
    /// Whether a schedule of these numbers exists, and a sampler of `steps` steps on it: else the key and what is expected.
    pub fn check(&self, steps: i64) -> Result<(), (&'static str, String)> {
        let wrong = |key, message: &str| Err((key, message.to_owned()));
        if self.num_train_timesteps < 1 {
            return wrong("num_train_timesteps", "at least 1 is expected");
        }
        if !(0.0 < self.beta_start && self.beta_start <= self.beta_end && self.beta_end < 1.0) {
            return wrong("beta_start", "0 < beta_start <= beta_end < 1 is expected");
        }
        if self.steps_offset < 0 {
            return wrong("steps_offset", "at least 0 is expected");
        }
        if self.rescale_betas_zero_snr && self.prediction_type == PredictionType::Epsilon {
            return wrong(
                "rescale_betas_zero_snr",
                "it needs `prediction_type: v_prediction`: where there is noise alone, nothing follows from knowing it",
            );
        }
        if self.rescale_betas_zero_snr && self.num_train_timesteps < 2 {
            return wrong("rescale_betas_zero_snr", "at least 2 timesteps are expected");
        }
        let total = self.num_train_timesteps;
        if steps < 1 || steps > total {
            return Err(("steps", format!("between 1 and {total} is expected")));
        }
        let highest = NoiseSchedule::new(self).timesteps(steps)[0];
        if highest >= total {
            let offset = self.steps_offset;
            return Err((
                "steps",
                format!(
                    "with `steps_offset: {offset}` they start at timestep {highest}, and the last is {}; \
                 take fewer steps, or another `timestep_spacing`",
                    total - 1
                ),
            ));
        }
        Ok(())
    }

    /// What a model is trained on.
    pub fn process(&self) -> Process {
        Process {
            num_train_timesteps: Some(self.num_train_timesteps),
            beta_start: Some(self.beta_start),
            beta_end: Some(self.beta_end),
            beta_schedule: Some(self.beta_schedule),
            prediction_type: Some(self.prediction_type),
            rescale_betas_zero_snr: Some(self.rescale_betas_zero_snr),
        }
    }

    /// The same, with what `process` says.
    pub fn with_process(self, process: Process) -> Config {
        Config {
            num_train_timesteps: process.num_train_timesteps.unwrap_or(self.num_train_timesteps),
            beta_start: process.beta_start.unwrap_or(self.beta_start),
            beta_end: process.beta_end.unwrap_or(self.beta_end),
            beta_schedule: process.beta_schedule.unwrap_or(self.beta_schedule),
            prediction_type: process.prediction_type.unwrap_or(self.prediction_type),
            rescale_betas_zero_snr: process.rescale_betas_zero_snr.unwrap_or(self.rescale_betas_zero_snr),
            ..self
        }
    }

    /// The image stage's: √β linear.
    pub fn scaled_linear() -> Config {
        Config { beta_schedule: BetaSchedule::ScaledLinear, ..Config::default() }
    }
}

/// The cumulative products ᾱ of a configuration.
#[derive(Debug)]
pub struct NoiseSchedule {
    config: Config,
    alphas_cumprod: Vec<f64>,
}

impl NoiseSchedule {
    /// Computes ᾱ in float32, as PyTorch does.
    pub fn new(config: &Config) -> NoiseSchedule {
        let Config { beta_start: start, beta_end: end, num_train_timesteps: steps, .. } = *config;
        let linspace = |start: f64, end: f64| Tensor::linspace(start, end, steps, (Kind::Float, Device::Cpu));
        let betas = match config.beta_schedule {
            BetaSchedule::Linear => linspace(start, end),
            BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt()).square(),
        };
        let mut alphas_cumprod = (-betas + 1.0).cumprod(0, Kind::Float);
        if config.rescale_betas_zero_snr {
            alphas_cumprod = rescaled(&alphas_cumprod);
        }
        let values = Vec::<f32>::try_from(&alphas_cumprod).expect("a vector of float32");
        NoiseSchedule { config: config.clone(), alphas_cumprod: values.into_iter().map(f64::from).collect() }
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// ᾱ at `timestep`, and after the last step (negative timesteps).
    pub fn alpha_cumprod(&self, timestep: i64) -> f64 {
        match usize::try_from(timestep) {
            Ok(timestep) => self.alphas_cumprod[timestep],
            Err(_) if self.config.set_alpha_to_one => 1.0,
            Err(_) => self.alphas_cumprod[0],
        }
    }

    /// ᾱ of each of `timesteps` `[B]`, float32 on their device, shaped to broadcast over tensors of `dims` axes.
    pub fn alphas_for(&self, timesteps: &Tensor, dims: usize) -> Tensor {
        let table = Tensor::from_slice(&self.alphas_cumprod).to_kind(Kind::Float).to_device(timesteps.device());
        let mut shape = vec![1; dims];
        shape[0] = -1;
        table.index_select(0, timesteps).view(&shape[..])
    }

    /// The timesteps of a sampler with `steps` steps, descending. Rounding is half to even, as in NumPy.
    pub fn timesteps(&self, steps: i64) -> Vec<i64> {
        let total = self.config.num_train_timesteps;
        match self.config.timestep_spacing {
            TimestepSpacing::Leading => {
                let ratio = total / steps;
                (0..steps).rev().map(|index| index * ratio + self.config.steps_offset).collect()
            }
            TimestepSpacing::Linspace => {
                let stride = if steps > 1 { (total - 1) as f64 / (steps - 1) as f64 } else { 0.0 };
                (0..steps).rev().map(|index| (index as f64 * stride).round_ties_even() as i64).collect()
            }
            TimestepSpacing::Trailing => {
                let ratio = total as f64 / steps as f64;
                (0..steps).map(|index| (total as f64 - index as f64 * ratio).round_ties_even() as i64 - 1).collect()
            }
        }
    }
}

/// ᾱ that ends at 0: √ᾱ less its last value, scaled so that the first is what it was.
fn rescaled(alphas_cumprod: &Tensor) -> Tensor {
    let roots = alphas_cumprod.sqrt();
    let (first, last) = (roots.get(0), roots.get(-1));
    ((&roots - &last) * (&first / (&first - &last))).square()
}
