//! Options of training, against diffusers and bitsandbytes.

use std::{collections::BTreeMap, fs};

use animatediff::{
    diffusion::{self, BetaSchedule, NoiseSchedule, PredictionType},
    train::{
        draws::Draws,
        ema::{self, Ema},
        optim::{self, AdamW, blockwise},
        scaler::LossScaler,
        timestep_bias::{Strategy, TimestepBias},
    },
};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

use crate::support::{assert_close, global_generator, golden_path};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn golden() -> Value {
    serde_json::from_str(&fs::read_to_string(golden_path("training_options.json")).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    serde_json::from_value(list.clone()).unwrap()
}

#[test]
fn averages_decay_and_follow_as_in_diffusers() {
    let golden = golden();
    for case in golden["ema_decays"].as_array().unwrap() {
        let config: ema::Config = serde_json::from_value(case["options"].clone()).unwrap();
        for (update, want) in numbers(&case["updates"]).into_iter().zip(numbers(&case["decays"])) {
            let got = config.decay_at(update as i64);
            assert!((got - want).abs() < 1e-12, "{config:?}, update {update}: {got} {want}");
        }
    }
    for case in golden["ema_averages"].as_array().unwrap() {
        let config: ema::Config = serde_json::from_value(case["options"].clone()).unwrap();
        let trained = BTreeMap::from([("a".to_owned(), Tensor::zeros([1], CPU).set_requires_grad(true))]);
        let mut average = Ema::new(&trained, config);
        for (update, want) in numbers(&case["averages"]).into_iter().enumerate() {
            let _ = no_grad(|| trained["a"].shallow_clone().fill_(update as f64 + 1.0));
            average.update(&trained);
            let got = average.state()["a"].double_value(&[0]);
            assert!((got - want).abs() < 1e-5 * want, "{config:?}, update {}: {got} {want}", update + 1);
        }
        // What a layer holds.
        let handle = trained["a"].shallow_clone();
        let mean = average.state()["a"].double_value(&[0]);
        let swapped = average.in_place_of(&trained);
        for tensor in [&trained["a"], &handle] {
            assert!(tensor.double_value(&[0]) == mean && mean != 20.0 && tensor.requires_grad(), "{mean}");
        }
        assert_eq!(average.state()["a"].double_value(&[0]), 20.0, "kept where the average was");
        drop(swapped);
        for (tensor, value) in [(&trained["a"], 20.0), (&handle, 20.0), (&average.state()["a"], mean)] {
            assert_eq!(tensor.double_value(&[0]), value);
        }
    }
}

#[test]
fn the_last_timestep_is_noise_alone_where_it_is_asked_for() {
    let golden = golden();
    for (name, beta_schedule) in [("linear", BetaSchedule::Linear), ("scaled_linear", BetaSchedule::ScaledLinear)] {
        let config = diffusion::Config {
            beta_schedule,
            prediction_type: PredictionType::VPrediction,
            rescale_betas_zero_snr: true,
            ..diffusion::Config::default()
        };
        let schedule = NoiseSchedule::new(&config);
        for (timestep, want) in numbers(&golden["zero_snr"][name]).into_iter().enumerate() {
            let got = schedule.alpha_cumprod(timestep as i64);
            assert!((got - want).abs() < 2e-6, "{name} {timestep}: {got} {want}");
        }
        assert_eq!(schedule.alpha_cumprod(999), 0.0);
        let epsilon = diffusion::Config { prediction_type: PredictionType::Epsilon, ..config };
        assert_eq!(epsilon.check(25).unwrap_err().0, "rescale_betas_zero_snr");
    }
}

#[test]
fn levels_of_8_bits_are_those_of_bitsandbytes() {
    let golden = golden();
    for (name, signed) in [("signed", true), ("unsigned", false)] {
        let (got, want) = (blockwise::levels(signed), numbers(&golden["levels"][name]));
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs(), "{name}: {got} {want}");
        }
    }
}

/// The parameters after `steps` updates on gradients that are the same for every optimizer.
fn after(use_8bit_adam: bool, steps: i64) -> (BTreeMap<String, Tensor>, AdamW) {
    let shapes: [(&str, &[i64]); 3] = [("wide", &[70, 100]), ("other", &[5000]), ("bias", &[100])];
    tch::manual_seed(1);
    let trained: BTreeMap<String, Tensor> = shapes
        .iter()
        .map(|(name, shape)| ((*name).to_owned(), Tensor::randn(*shape, CPU).set_requires_grad(true)))
        .collect();
    let mut optimizer = AdamW::new(&trained, optim::Config { use_8bit_adam, ..optim::Config::default() });
    for step in 0..steps {
        update(&trained, &mut optimizer, step);
    }
    (trained, optimizer)
}

fn update(trained: &BTreeMap<String, Tensor>, optimizer: &mut AdamW, step: i64) {
    tch::manual_seed(100 + step);
    optimizer.zero_grad();
    for tensor in trained.values() {
        (tensor * (Tensor::randn(tensor.size(), CPU) + 0.3)).sum(Kind::Float).backward();
    }
    optimizer.step(1e-2);
}

#[test]
fn moments_in_8_bits_take_a_quarter_of_the_memory_and_nearly_the_same_way() {
    let _generator = global_generator();
    let (start, _) = after(false, 0);
    let (full, optimizer) = after(false, 20);
    let (coarse, small) = after(true, 20);
    let change = |params: &BTreeMap<String, Tensor>, name: &str| &params[name] - &start[name];
    for name in ["wide", "other"] {
        let (got, want) = (change(&coarse, name), change(&full, name));
        let off = (&got - &want).norm().double_value(&[]) / want.norm().double_value(&[]);
        assert!(off < 0.05 && off > 0.0, "{name}: {off}");
    }
    assert!(coarse["bias"].equal(&full["bias"]), "small tensors keep their moments in full");
    let bytes = |optimizer: &AdamW| -> usize {
        optimizer.state().values().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum()
    };
    let ratio = bytes(&small) as f64 / bytes(&optimizer) as f64;
    assert!(ratio < 0.28, "{ratio}");
}

#[test]
fn moments_in_8_bits_are_taken_up_where_they_were_left() {
    let _generator = global_generator();
    let (whole, _) = after(true, 6);
    let (_, half) = after(true, 3);
    let saved: BTreeMap<String, Tensor> =
        half.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
    let (trained, _) = after(true, 3);
    let mut optimizer = AdamW::new(&trained, optim::Config { use_8bit_adam: true, ..optim::Config::default() });
    optimizer.load_state(&saved).unwrap();
    for step in 3..6 {
        update(&trained, &mut optimizer, step);
    }
    assert!(whole.iter().all(|(name, tensor)| tensor.equal(&trained[name])));
    let mut full = AdamW::new(&trained, optim::Config::default());
    assert!(full.load_state(&saved).is_err(), "moments of another kind are refused");
}

#[test]
fn a_tensor_without_a_gradient_keeps_its_moments() {
    let _generator = global_generator();
    for (use_8bit_adam, left_out) in [(true, "other"), (true, "bias"), (false, "other")] {
        let copies = |tensors: BTreeMap<String, Tensor>| -> BTreeMap<String, Tensor> {
            tensors.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
        };
        let moments = copies(after(use_8bit_adam, 2).1.state());
        // New tensors, which have no gradients yet.
        let (trained, _) = after(use_8bit_adam, 0);
        let mut optimizer = AdamW::new(&trained, optim::Config { use_8bit_adam, ..optim::Config::default() });
        optimizer.load_state(&moments).unwrap();
        let values = copies(trained.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect());
        let reached = trained.iter().filter(|(name, _)| *name != left_out);
        reached.for_each(|(_, tensor)| tensor.sum(Kind::Float).backward());
        optimizer.step(1e-2);
        for name in trained.keys() {
            let moment = format!("{name}.exp_avg");
            assert_eq!(trained[name].equal(&values[name]), name == left_out, "{use_8bit_adam} {name}");
            assert_eq!(
                optimizer.state()[&moment].equal(&moments[&moment]),
                name == left_out,
                "{use_8bit_adam} {moment}"
            );
        }
    }
}

#[test]
fn the_scale_of_the_loss_falls_at_once_and_rises_slowly() {
    let mut scaler = LossScaler::default();
    assert_eq!(scaler.scale(), 65_536.0);
    let (fine, overflow) = ((0.1, 1.0), (0.1, f64::INFINITY));
    let learn = |scaler: &mut LossScaler, (loss, grad_norm)| scaler.learn(loss, grad_norm);
    learn(&mut scaler, overflow);
    assert_eq!((scaler.scale(), scaler.since()), (32_768.0, 0));
    (0..1999).for_each(|_| learn(&mut scaler, fine));
    assert_eq!((scaler.scale(), scaler.since()), (32_768.0, 1999));
    for loss in [f64::NAN, f64::INFINITY] {
        learn(&mut scaler, (loss, f64::NAN));
        assert_eq!((scaler.scale(), scaler.since()), (32_768.0, 1999), "the clip's fault, and not the scale's");
    }
    learn(&mut scaler, fine);
    assert_eq!((scaler.scale(), scaler.since()), (65_536.0, 0));
    assert_eq!(LossScaler::from_state(scaler.scale(), 0), scaler);
    (0..17).for_each(|_| learn(&mut scaler, overflow));
    assert!(!scaler.may_overflow(), "below 1 an overflow is the model's own");
}

#[test]
fn an_offset_shifts_a_clips_noise_as_a_whole_and_nothing_else() {
    let _generator = global_generator();
    let bias = TimestepBias { strategy: Strategy::None, multiplier: 1.0, portion: 0.25 };
    let draw = |offset| Draws::new(7, 3, [3, 4, 5, 8, 8], (1000, bias), 0.1, offset);
    let (plain, shifted) = (draw(0.0), draw(0.1));
    assert!(plain.posterior.equal(&shifted.posterior) && plain.timesteps.equal(&shifted.timesteps));
    assert_eq!(plain.drop_caption, shifted.drop_caption);
    let shift = &shifted.noise - &plain.noise;
    let flat = shift.view([3, 4, -1]);
    assert_close("constant", &flat, &flat.narrow(2, 0, 1).expand_as(&flat), 1e-5);
    let sizes = flat.select(2, 0);
    assert!(sizes.std(true).double_value(&[]) > 0.03 && sizes.std(true).double_value(&[]) < 0.3, "{sizes}");
}
