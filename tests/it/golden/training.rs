//! Losses, gradients and ten AdamW steps of the four kinds of training.

use std::collections::BTreeMap;

use animatediff::{
    assemble::{UNetParts, read_adapter, read_motion_lora},
    diffusion::{BetaSchedule, Config, NoiseSchedule, Weighting, loss},
    model::unet::UNet,
    nn::{LoraPlan, NormScope, Pattern, Plan, Store},
    train::optim::{self, AdamW},
    weights::{Content, Dialect, Table},
};
use tch::{Device, Kind, Tensor};

use crate::support::{
    GRADIENT, Golden, OUTPUT, assert_close, base, golden_path, largest, motion, relative_error, table,
};

/// A gradient below this part of the model's largest is rounding. Queries and keys have none where there is one token to
/// look at, as in the middle block of these small pictures.
const ZERO: f64 = 1e-7;

/// Low-rank pairs, of the golden rank and scale 1, on the layers that match `targets`.
fn train_pairs(targets: &str) -> Plan {
    Plan { lora: Some(LoraPlan { targets: vec![Pattern::new(targets)], rank: 4, scale: 1.0 }), ..Plan::frozen() }
}

fn adapter() -> animatediff::weights::Lora {
    read_adapter(&golden_path("adapter.safetensors")).unwrap()
}

#[test]
fn adapter_stage() {
    let base = base();
    let parts = UNetParts { added: Some(adapter()), ..UNetParts::new(&base) };
    let table = table(Content::LowRank, Dialect::Official);
    train("train_adapter", parts, train_pairs(".attentions.*.to_"), |name| official(&table, &format!("unet.{name}")));
}

#[test]
fn motion_stage() {
    let base = base();
    let parts = UNetParts {
        motion: Some(motion("v3", NormScope::Frame)),
        merged: vec![(adapter(), 1.0)],
        ..UNetParts::new(&base)
    };
    let table = table(Content::MotionModule, Dialect::Official);
    let plan = Plan::train([Pattern::new("motion_modules.")]);
    train("train_motion", parts, plan, |name| official(&table, name));
}

#[test]
fn motion_lora_stage() {
    let base = base();
    let pairs = read_motion_lora(&golden_path("motion_lora.safetensors")).unwrap();
    let parts = UNetParts { motion: Some(motion("v2", NormScope::Frame)), added: Some(pairs), ..UNetParts::new(&base) };
    let table = table(Content::LowRank, Dialect::Official);
    train("train_motionlora", parts, train_pairs(".motion_modules.*.to_"), |name| {
        official(&table, &format!("unet.{name}"))
    });
}

#[test]
fn image_fine_tuning() {
    let base = base();
    train("train_image", UNetParts::new(&base), Plan::train([Pattern::new(".")]), str::to_owned);
}

fn official(table: &Table, name: &str) -> String {
    table.export_name(name).unwrap_or_else(|| panic!("`{name}` has no official name"))
}

/// Ten updates of what `plan` trains; `foreign` gives the golden file's name for one of ours.
fn train(name: &str, parts: UNetParts, plan: Plan, foreign: impl Fn(&str) -> String) {
    let golden = Golden::load(name);
    let settings = golden.json("config");
    let (unet, store) = parts.build(plan, Device::Cpu, Kind::Float).unwrap();
    let schedule = schedule(&settings);
    let mut optimizer = AdamW::new(&store.trained, optimizer_config(&settings));
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..10 {
        let loss = step_loss(&golden, &unet, &schedule, step);
        optimizer.zero_grad();
        loss.backward();
        if step == 0 {
            compare_gradients(name, &golden, &store, &foreign);
        }
        norms.push(optimizer.clip_grad_norm(settings["max_grad_norm"].as_f64().unwrap()));
        optimizer.step(settings["lr"].as_f64().unwrap());
        losses.push(loss.double_value(&[]));
    }
    compare_each(&format!("{name}: losses"), &losses, &golden.get("out.losses"), OUTPUT);
    compare_each(&format!("{name}: gradient norms"), &norms, &golden.get("out.grad_norms"), GRADIENT);
    assert_close(&format!("{name}: first loss"), &Tensor::from(losses[0]), &golden.get("out.loss"), 1e-5);
}

fn schedule(settings: &serde_json::Value) -> NoiseSchedule {
    let beta_schedule: BetaSchedule = serde_json::from_value(settings["betas"].clone()).unwrap();
    NoiseSchedule::new(&Config { beta_schedule, ..Config::default() })
}

fn optimizer_config(settings: &serde_json::Value) -> optim::Config {
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    optim::Config {
        adam_beta1: number(&settings["adam_betas"][0]),
        adam_beta2: number(&settings["adam_betas"][1]),
        adam_weight_decay: number(&settings["weight_decay"]),
        adam_epsilon: number(&settings["eps"]),
        use_8bit_adam: false,
    }
}

/// The objective on the golden noise and timesteps of `step`; pictures are clips of one frame.
fn step_loss(golden: &Golden, unet: &UNet, schedule: &NoiseSchedule, step: i64) -> Tensor {
    let (clean, text) = (golden.get("in.latents"), golden.get("in.text"));
    let (noise, timesteps) = (golden.get("in.noise").get(step), golden.get("in.timesteps").get(step));
    loss(schedule, &clean, &noise, &timesteps, Weighting::Uniform, |noisy, timesteps| match noisy.dim() {
        4 => unet.forward_folded(noisy, timesteps, &text, 1),
        _ => unet.forward(noisy, timesteps, &text),
    })
}

/// Every golden gradient is close to ours. Where the file has more than a choice of them, they are of the same tensors.
fn compare_gradients(name: &str, golden: &Golden, store: &Store, foreign: impl Fn(&str) -> String) {
    let mut ours: BTreeMap<String, Tensor> =
        store.trained.iter().map(|(name, tensor)| (foreign(name), tensor.grad())).collect();
    let expected = golden.below("grad.");
    let floor = ZERO * expected.values().map(largest).fold(0.0, f64::max);
    let mut worst: (f64, &str) = (0.0, "");
    let mut zeros = 0;
    for (key, want) in &expected {
        let got = ours.remove(key).unwrap_or_else(|| panic!("{name}: `{key}` is not trained"));
        if largest(want) < floor {
            assert!(largest(&got) < floor, "{name}: gradient of `{key}` should vanish");
            zeros += 1;
            continue;
        }
        let error = relative_error(&got, want);
        assert!(error <= GRADIENT, "{name}: gradient of `{key}` is off by {error:.1e} of its largest magnitude");
        if error > worst.0 {
            worst = (error, key);
        }
    }
    println!("{name}: {} gradients ({zeros} vanish), largest error {:.1e} in `{}`", expected.len(), worst.0, worst.1);
    assert!(name == "train_image" || ours.is_empty(), "{name}: trained beyond the golden ones: {:?}", ours.keys());
}

/// Each value relative to itself.
fn compare_each(name: &str, got: &[f64], want: &Tensor, tolerance: f64) {
    let ratios = Tensor::from_slice(got) / want;
    assert_close(name, &ratios, &ratios.ones_like(), tolerance);
}
