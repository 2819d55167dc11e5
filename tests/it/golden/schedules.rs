//! Noise schedules, DDIM and the forward process.

use animatediff::diffusion::{BetaSchedule, Config, Ddim, NoiseSchedule, PredictionType, TimestepSpacing, add_noise};
use tch::{Kind, Tensor};

use crate::support::{Golden, assert_close};

const SPACINGS: [(&str, TimestepSpacing); 3] = [
    ("leading", TimestepSpacing::Leading),
    ("linspace", TimestepSpacing::Linspace),
    ("trailing", TimestepSpacing::Trailing),
];
const BETAS: [(&str, BetaSchedule); 2] =
    [("linear", BetaSchedule::Linear), ("scaled_linear", BetaSchedule::ScaledLinear)];
/// Plain arithmetic in float32, in another order than diffusers'.
const ARITHMETIC: f64 = 1e-5;

#[test]
fn cumulative_products() {
    let golden = Golden::load("schedules");
    for (name, beta_schedule) in BETAS {
        let schedule = NoiseSchedule::new(&Config { beta_schedule, ..Config::default() });
        let got: Vec<f64> = (0..1000).map(|t| schedule.alpha_cumprod(t)).collect();
        let want = golden.get(&format!("{name}.alphas_cumprod"));
        // Relative to each value, as the last are a thousandth of the first.
        let ratio = Tensor::from_slice(&got) / &want;
        assert_close(name, &ratio, &ratio.ones_like(), 1e-6);
    }
}

#[test]
fn timesteps() {
    let golden = Golden::load("schedules");
    for (name, timestep_spacing) in SPACINGS {
        let schedule = NoiseSchedule::new(&Config { timestep_spacing, ..Config::default() });
        for steps in [5, 7, 25, 50, 999] {
            let want = Vec::<i64>::try_from(golden.get(&format!("ddim.{name}.{steps}"))).unwrap();
            assert_eq!(Ddim::new(&schedule, steps).timesteps(), want, "{name}, {steps} steps");
        }
    }
}

#[test]
fn trajectories() {
    let golden = Golden::load("schedules");
    let predictions = [("epsilon", PredictionType::Epsilon), ("v_prediction", PredictionType::VPrediction)];
    for (spacing, timestep_spacing) in SPACINGS {
        for (last, set_alpha_to_one) in [("one", true), ("zero", false)] {
            for (prediction, prediction_type) in predictions {
                let config = Config { timestep_spacing, set_alpha_to_one, prediction_type, ..Config::default() };
                follow(&golden, &format!("traj.{spacing}.{last}.{prediction}"), &config);
            }
        }
    }
    follow(&golden, "traj.leading.one.epsilon_clip", &Config { clip_sample: true, ..Config::default() });
}

/// Samples from the golden noise with the golden outputs as the network, and compares x after every step.
fn follow(golden: &Golden, name: &str, config: &Config) {
    let schedule = NoiseSchedule::new(config);
    let (outputs, want) = (golden.get(&format!("{name}.eps")), golden.get(&format!("{name}.out")));
    let ddim = Ddim::new(&schedule, outputs.size()[0]);
    let mut seen = Vec::new();
    let predict = |x: &Tensor, _: i64| {
        seen.push(x.shallow_clone());
        outputs.get(seen.len() as i64 - 1)
    };
    let last = ddim.sample(golden.get("traj.x_T"), predict, |_| Ok::<(), ()>(())).unwrap();
    seen.push(last);
    assert_close(name, &Tensor::stack(&seen[1..], 0), &want, ARITHMETIC);
}

#[test]
fn noise_is_added() {
    let golden = Golden::load("schedules");
    let (clean, noise) = (golden.get("add_noise.clean"), golden.get("add_noise.noise"));
    for (name, beta_schedule) in BETAS {
        let schedule = NoiseSchedule::new(&Config { beta_schedule, ..Config::default() });
        let got = add_noise(&schedule, &clean, &noise, &golden.get("add_noise.timesteps"));
        assert_eq!(got.kind(), Kind::Float);
        assert_close(name, &got, &golden.get(&format!("add_noise.{name}")), 1e-6);
    }
}
