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

/// Mean squared error over everything, in float32. `predict(noisy, timesteps)` is the network.
pub fn loss(
    schedule: &NoiseSchedule,
    clean: &Tensor,
    noise: &Tensor,
    timesteps: &Tensor,
    predict: impl FnOnce(&Tensor, &Tensor) -> Tensor,
) -> Tensor {
    let noisy = add_noise(schedule, clean, noise, timesteps);
    let prediction = predict(&noisy, timesteps).to_kind(Kind::Float);
    prediction.mse_loss(&target(schedule, clean, noise, timesteps).to_kind(Kind::Float), Reduction::Mean)
}
