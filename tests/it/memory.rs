//! What is said when memory runs out, and what is written of clips that were skipped.

use std::collections::BTreeMap;

use animatediff::{
    data::Sample,
    train::{Config, Stage, bad_step, memory, trainer::Weights},
};
use tch::{Device, Kind};

/// The advice for `config` in `stage`.
fn advice(config: &Config, stage: Stage) -> String {
    let weights = Weights { trained: BTreeMap::new(), frozen: BTreeMap::new() };
    let Err(failure) =
        memory::guard(|| -> anyhow::Result<()> { panic!("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when") })
    else {
        panic!("it was caught")
    };
    format!("{:#}", failure.explain(config, stage, (&weights, 0.0), (Device::Cpu, Kind::BFloat16)))
}

#[test]
fn memory_that_runs_out_is_told_with_what_the_stage_can_do() {
    let batch = |train_batch_size| Config { train_batch_size, ..Config::default() };
    for (clips, batch_size, passes) in [(2, 1, 2), (3, 1, 3), (6, 3, 2), (9, 3, 3)] {
        let line = format!("train_batch_size: {batch_size} with gradient_accumulation_steps: {passes} (");
        let told = advice(&batch(clips), Stage::Motion);
        assert!(told.starts_with("memory ran out (CUDA error: ") && told.contains(&line), "{told}");
    }
    assert!(!advice(&batch(1), Stage::Motion).contains("train_batch_size"));
    let told = |stage| advice(&batch(2), stage);
    for (stage, checkpointing, frames) in
        [(Stage::Motion, true, true), (Stage::Image, true, false), (Stage::Vae, false, false)]
    {
        assert_eq!(told(stage).contains("gradient_checkpointing"), checkpointing, "{stage}");
        assert_eq!(told(stage).contains("sample_n_frames"), frames, "{stage}");
    }
    let other = memory::guard(|| -> anyhow::Result<()> { panic!("something else") });
    assert!(matches!(other, Err(memory::Failure::Other(error)) if error.to_string().contains("something else")));
}

#[test]
fn pixels_that_are_no_numbers_are_counted() {
    let sample = |pixels: Vec<f32>| Sample {
        position: 3,
        id: "a".into(),
        caption: String::new(),
        pixels,
        frames: 1,
        height: 1,
        width: 1,
        encoded: None,
    };
    let told = bad_step::clips(&[sample(vec![0.5, f32::NAN, -0.75]), sample(Vec::new())]);
    assert_eq!((&told[0]["largest_pixel"], &told[0]["pixels_not_finite"]), (&0.75.into(), &1.into()));
    assert!(told[1]["largest_pixel"].is_null(), "a clip from a cache has none");
}
