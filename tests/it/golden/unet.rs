//! The UNet for pictures and for clips, with adapters and MotionLoRAs merged and beside the weights.

use animatediff::{
    assemble::{UNetParts, read_adapter, read_motion_lora},
    model::unet::UNet,
    nn::{LoraPlan, NormScope, Pattern, Plan},
    weights::Lora,
};
use tch::{Device, Kind, Tensor};

use crate::support::{Golden, OUTPUT, assert_close, base, global_generator, golden_path, motion};

/// Rank of the golden low-rank pairs.
const RANK: i64 = 4;

fn adapter() -> Lora {
    read_adapter(&golden_path("adapter.safetensors")).unwrap()
}

fn motion_lora() -> Lora {
    read_motion_lora(&golden_path("motion_lora.safetensors")).unwrap()
}

/// Low-rank pairs on the layers that match `targets`.
fn lora_plan(targets: &str, scale: f64) -> Plan {
    Plan { lora: Some(LoraPlan { targets: vec![Pattern::new(targets)], rank: RANK, scale }), ..Plan::frozen() }
}

fn build(parts: UNetParts, plan: Plan) -> UNet {
    parts.build(plan, Device::Cpu, Kind::Float).unwrap().0
}

/// The prediction for the golden inputs; pictures are clips of one frame.
fn predict(unet: &UNet, golden: &Golden) -> Tensor {
    let (sample, timesteps, text) = (golden.get("in.sample"), golden.get("in.timesteps"), golden.get("in.text"));
    tch::no_grad(|| match sample.dim() {
        4 => unet.forward_folded(&sample, &timesteps, &text, 1),
        _ => unet.forward(&sample, &timesteps, &text),
    })
}

#[test]
fn pictures() {
    let golden = Golden::load("unet2d");
    let unet = build(UNetParts::new(&base()), Plan::frozen());
    assert_close("plain", &predict(&unet, &golden), &golden.get("out.plain"), OUTPUT);
}

#[test]
fn sizes_that_are_not_multiples_of_eight() {
    let golden = Golden::load("unet2d");
    let first = |key| golden.get(key).narrow(0, 0, 1);
    for plan in [Plan::frozen(), Plan::only_used()] {
        let unet = build(UNetParts::new(&base()), plan);
        let got = unet.forward_folded(&golden.get("in.sample_odd"), &first("in.timesteps"), &first("in.text"), 1);
        assert_close("odd", &got, &golden.get("out.odd"), OUTPUT);
    }
}

#[test]
fn adapter_merged_and_at_run_time() {
    let golden = Golden::load("unet2d");
    let base = base();
    for (key, scale) in [("out.plain", 0.0), ("out.adapter_1", 1.0), ("out.adapter_half", 0.5)] {
        let merged = UNetParts { merged: vec![(adapter(), scale)], ..UNetParts::new(&base) };
        let merged = predict(&build(merged, Plan::frozen()), &golden);
        assert_close(&format!("{key}, merged"), &merged, &golden.get(key), OUTPUT);

        let beside = UNetParts { added: Some(adapter()), ..UNetParts::new(&base) };
        let beside = predict(&build(beside, lora_plan(".attentions.*.to_", scale)), &golden);
        assert_close(&format!("{key}, at run time"), &beside, &golden.get(key), OUTPUT);
        assert_close(&format!("{key}, at run time against merged"), &beside, &merged, 1e-5);
    }
}

#[test]
fn clips_of_every_version_and_norm_scope() {
    let golden = Golden::load("unet3d");
    let base = base();
    for version in ["v1", "v2", "v3"] {
        for (name, scope) in [("frame", NormScope::Frame), ("clip", NormScope::Clip)] {
            let parts = UNetParts { motion: Some(motion(version, scope)), ..UNetParts::new(&base) };
            let key = format!("out.{version}_{name}");
            assert_close(&key, &predict(&build(parts, Plan::frozen()), &golden), &golden.get(&key), OUTPUT);
        }
    }
}

#[test]
fn motion_lora_merged_and_at_run_time() {
    let golden = Golden::load("unet3d");
    let (base, want) = (base(), golden.get("out.v2_frame_lora08"));
    let parts = || UNetParts { motion: Some(motion("v2", NormScope::Frame)), ..UNetParts::new(&base) };

    let merged = build(UNetParts { merged: vec![(motion_lora(), 0.8)], ..parts() }, Plan::frozen());
    assert_close("merged", &predict(&merged, &golden), &want, OUTPUT);

    let plan = lora_plan(".motion_modules.*.to_", 0.8);
    let beside = build(UNetParts { added: Some(motion_lora()), ..parts() }, plan);
    assert_close("at run time", &predict(&beside, &golden), &want, OUTPUT);
}

#[test]
fn low_rank_deltas_add_up() {
    let golden = Golden::load("unet3d");
    let base = base();
    let run = |merged| {
        let motion = Some(motion("v2", NormScope::Frame));
        predict(&build(UNetParts { motion, merged, ..UNetParts::new(&base) }, Plan::frozen()), &golden)
    };
    let want = golden.get("out.v2_frame_lora08");
    assert_close("0.5 + 0.3", &run(vec![(motion_lora(), 0.5), (motion_lora(), 0.3)]), &want, OUTPUT);
    assert_close("1.8 - 1", &run(vec![(motion_lora(), 1.8), (motion_lora(), -1.0)]), &want, OUTPUT);
}

#[test]
fn adapter_under_a_motion_module() {
    let golden = Golden::load("unet3d");
    let base = base();
    for plan in [Plan::frozen(), Plan::only_used()] {
        let parts = UNetParts {
            motion: Some(motion("v3", NormScope::Frame)),
            merged: vec![(adapter(), 1.0)],
            ..UNetParts::new(&base)
        };
        let unet = build(parts, plan);
        assert_close("v3", &predict(&unet, &golden), &golden.get("out.v3_frame_adapter1"), OUTPUT);
    }
}

/// As guided sampling does it: the text read once, the start shared by both halves of the batch, the rest in parts.
fn predict_in_parts(unet: &UNet, latents: &Tensor, timesteps: &Tensor, text: &Tensor, parts: usize) -> Tensor {
    tch::no_grad(|| {
        let start = unet.begin(latents, timesteps, text.kind()).repeated(2);
        let pieces = start.split(parts).into_iter().zip(unet.read(text).split(parts));
        Tensor::cat(&pieces.map(|(start, reading)| unet.finish(&start, &reading)).collect::<Vec<_>>(), 0)
    })
}

#[test]
fn what_is_computed_once_for_several_texts_is_what_each_would_compute() {
    let _generator = global_generator();
    let base = base();
    tch::manual_seed(5);
    let options = (Kind::Float, Device::Cpu);
    // Clips A and B, whose frames are 8 by 8, under two texts each.
    let (latents, timesteps) = (Tensor::randn([2, 4, 3, 8, 8], options), Tensor::from_slice(&[10_i64, 700]));
    let text = Tensor::randn([4, 5, base.unet.cross_attention_dim], options);
    let (twice, both_times) = (Tensor::cat(&[&latents, &latents], 0), Tensor::cat(&[&timesteps, &timesteps], 0));
    for version in [None, Some("v1")] {
        for (plan, kind, tolerance) in [
            (Plan::frozen(), Kind::Float, 1e-5),
            (Plan::only_used(), Kind::Float, 1e-5),
            (Plan::only_used(), Kind::BFloat16, 2e-2),
        ] {
            let motion = version.map(|version| motion(version, NormScope::Frame));
            let (unet, _) =
                UNetParts { motion, ..UNetParts::new(&base) }.build(plan.clone(), Device::Cpu, kind).unwrap();
            let text = text.to_kind(kind);
            let plain = tch::no_grad(|| unet.forward(&twice, &both_times, &text));
            for parts in [1, 3] {
                let what = format!("{version:?}, {plan:?}, {kind:?}, {parts} parts");
                let found = predict_in_parts(&unet, &latents, &timesteps, &text, parts);
                assert_close(&what, &found.to_kind(Kind::Float), &plain.to_kind(Kind::Float), tolerance);
            }
        }
    }
}
