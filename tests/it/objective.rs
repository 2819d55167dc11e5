//! The weighting of timesteps in the objective.

use animatediff::diffusion::{Config, NoiseSchedule, PredictionType, Weighting, loss};
use tch::{Kind, Tensor};

fn schedule(prediction_type: PredictionType) -> NoiseSchedule {
    NoiseSchedule::new(&Config { prediction_type, ..Config::scaled_linear() })
}

#[test]
fn weights_follow_the_signal_to_noise_ratio() {
    let timesteps = [0i64, 100, 400, 700, 999];
    for (kind, of_snr) in [
        (PredictionType::Epsilon, (|least, snr| least / snr) as fn(f64, f64) -> f64),
        (PredictionType::VPrediction, |least, snr| least / (snr + 1.0)),
    ] {
        let schedule = schedule(kind);
        let min_snr = Weighting::MinSnr(5.0).weights(&schedule, &Tensor::from_slice(&timesteps), 4).unwrap();
        let debiased = Weighting::Debiased.weights(&schedule, &Tensor::from_slice(&timesteps), 4).unwrap();
        assert_eq!(min_snr.size(), [5, 1, 1, 1]);
        for (row, &timestep) in timesteps.iter().enumerate() {
            let alpha = schedule.alpha_cumprod(timestep);
            let snr = alpha / (1.0 - alpha);
            let at = |weights: &Tensor| weights.double_value(&[row as i64, 0, 0, 0]);
            let close =
                |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-4, "{timestep}: {got} {expected}");
            close(at(&min_snr), of_snr(snr.min(5.0), snr));
            close(at(&debiased), snr.powf(-0.5));
        }
    }
    assert!(
        Weighting::Uniform.weights(&schedule(PredictionType::Epsilon), &Tensor::from_slice(&timesteps), 4).is_none()
    );
}

#[test]
fn a_weighted_loss_is_the_mean_of_weighted_rows() {
    let schedule = schedule(PredictionType::Epsilon);
    let timesteps = Tensor::from_slice(&[50i64, 900]);
    let noise = Tensor::from_slice(&[1f32, 2.0]).view([2, 1, 1, 1]);
    let of = |weighting| {
        let clean = noise.zeros_like();
        loss(&schedule, &clean, &noise, &timesteps, weighting, |noisy, _| noisy.zeros_like()).double_value(&[])
    };
    assert!((of(Weighting::Uniform) - 2.5).abs() < 1e-6);
    for weighting in [Weighting::MinSnr(1.0), Weighting::Debiased] {
        let weights = weighting.weights(&schedule, &timesteps, 4).unwrap();
        let expected = (weights.flatten(0, -1) * Tensor::from_slice(&[1f32, 4.0])).mean(Kind::Float).double_value(&[]);
        assert!((of(weighting) - expected).abs() < 1e-5 * expected, "{weighting:?}");
    }
}
