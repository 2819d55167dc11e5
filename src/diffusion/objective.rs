//! The training objective: predict what was added.

use tch::{Kind, Reduction, Tensor};

use super::schedule::{NoiseSchedule, PredictionType};

/// `√ᾱ · clean + √(1−ᾱ) · noise` with one timestep per row; `timesteps` is `[B]` int64.
pub fn add_noise(schedule: &NoiseSchedule, clean: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
    let alphas = schedule.alphas_for(timesteps, clean.dim());
    alphas.sqrt() * clean + (-&alphas + 1.0).sqrt() * noise
}

/// What the network should predict for such a row.
pub fn target(schedule: &NoiseSchedule, clean: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
    match schedule.config().prediction_type {
        PredictionType::Epsilon => noise.shallow_clone(),
        PredictionType::VPrediction => {
            let alphas = schedule.alphas_for(timesteps, clean.dim());
            alphas.sqrt() * noise - (-&alphas + 1.0).sqrt() * clean
        }
    }
}

/// How much the rows of a batch count, by how noisy they are; `SNR = ᾱ / (1−ᾱ)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Weighting {
    /// All the same.
    #[default]
    Uniform,
    /// `min(SNR, γ) / SNR` where the noise is predicted, `min(SNR, γ) / (SNR + 1)` for the velocity: what has little noise
    /// counts less (Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy").
    MinSnr(f64),
    /// `1 / √SNR`, where the noise is predicted: what is mostly noise, where the layout is decided, counts more (Yu et al.
    /// 2023, "Debias the training of diffusion models").
    Debiased,
}

impl Weighting {
    /// One weight per row, shaped to multiply `dims` dimensions; none where all are 1.
    pub fn weights(self, schedule: &NoiseSchedule, timesteps: &Tensor, dims: usize) -> Option<Tensor> {
        let alphas = schedule.alphas_for(timesteps, dims);
        let snr = &alphas / (-&alphas + 1.0);
        match (self, schedule.config().prediction_type) {
            (Weighting::Uniform, _) => None,
            (Weighting::MinSnr(gamma), PredictionType::Epsilon) => Some(snr.clamp_max(gamma) / snr),
            (Weighting::MinSnr(gamma), PredictionType::VPrediction) => Some(snr.clamp_max(gamma) / (snr + 1.0)),
            (Weighting::Debiased, _) => Some(snr.rsqrt()),
        }
    }
}

/// Mean squared error over everything, in float32, each row weighted. `predict(noisy, timesteps)` is the network.
pub fn loss(
    schedule: &NoiseSchedule,
    clean: &Tensor,
    noise: &Tensor,
    timesteps: &Tensor,
    weighting: Weighting,
    predict: impl FnOnce(&Tensor, &Tensor) -> Tensor,
) -> Tensor {
    let noisy = add_noise(schedule, clean, noise, timesteps);
    let prediction = predict(&noisy, timesteps).to_kind(Kind::Float);
    let target = target(schedule, clean, noise, timesteps).to_kind(Kind::Float);
    match weighting.weights(schedule, timesteps, clean.dim()) {
        None => prediction.mse_loss(&target, Reduction::Mean),
        Some(weights) => (prediction.mse_loss(&target, Reduction::None) * weights).mean(Kind::Float),
    }
}
