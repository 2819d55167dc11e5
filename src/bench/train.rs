//! Updates of stage 2: the motion module is trained, all else is frozen.

use anyhow::{Context, Result};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{
    Case, Report, flops,
    measure::{self, Marks, round, since_start, timed, with},
    world::World,
};
use crate::{
    data::{Sample, Size},
    device::{DeviceChoice, Precision},
    native,
    nn::Checkpointing,
    train::{
        Config, Stage,
        recipe::Recipe,
        trainer::{StepReport, Trainer},
    },
};

/// What makes a run smaller in memory.
#[derive(Clone, Copy, Debug)]
pub struct Savings {
    /// What a backward pass computes again.
    pub checkpointing: Checkpointing,
    /// Whether the optimizer's moments have 8 bits.
    pub adam8bit: bool,
}

/// Updates on random clips: `case.warmup` and one more that are not counted, then `case.steps`. What the VAE makes of the clips
/// is kept from the first update on, as with a cache of latents; captions go through the text encoder each time.
pub fn run(case: &Case, savings: Savings) -> Result<Report> {
    if case.device == Device::Cpu {
        native::keep_freed_memory();
    }
    let (trainer, build, _) = timed(|| {
        let (world, config) = (World::new(case)?, config(case, savings));
        let recipe = Recipe::new(Stage::Motion, &config);
        let trainer = Trainer::new(&config, &recipe, &world.base, case.steps + 1, case.device, Default::default())?;
        measure::finish(case.device);
        Ok::<_, anyhow::Error>(trainer)
    });
    let mut trainer = trainer?;
    let samples = samples(case);
    let mut update = || -> Result<StepReport> { trainer.update(&samples, || false)?.context("nothing stops it") };
    let (warm, warmup, _) = timed(|| {
        let report = update()?;
        let first = since_start();
        (0..case.warmup).try_for_each(|_| update().map(drop))?;
        Ok::<_, anyhow::Error>((report, first))
    });
    let (first_report, first) = warm?;
    case.settled();
    let mut marks = Marks::start(case.device);
    let (last, total, busy) = timed(|| {
        let mut last = first_report;
        for _ in 0..case.steps {
            last = update()?;
            marks.mark();
        }
        Ok::<_, anyhow::Error>(last)
    });
    let last = last?;
    let trained: i64 = trainer.weights.trained.values().map(|tensor| tensor.numel() as i64).sum();
    let measured = json!({
        "steps": case.steps,
        "total_s": round(total, 4),
        "build_s": round(build, 3),
        "warmup_s": round(warmup, 3),
        "time_to_first_step_s": first.map(|seconds| round(seconds, 3)),
        "grad_ckpt": savings.checkpointing,
        "encode": "cached",
        "adamw": if savings.adam8bit { "8bit" } else { "fused" },
        "trainable_m": round(trained as f64 / 1e6, 3),
        "loss_first": round(first_report.loss, 5),
        "loss_last": round(last.loss, 5),
        "cpu_per_wall": round(busy, 2),
    });
    let measured = with(measure::steps(&marks.seconds(), flops::update(case)), measured);
    Ok(Report::new("train-motion", case, measured))
}

fn config(case: &Case, savings: Savings) -> Config {
    let mut config = Config::for_stage(Stage::Motion);
    config.unet_additional_kwargs = Some(case.architecture());
    config.train_data.sample_size = Size::square(case.size as usize);
    config.train_data.sample_n_frames = case.frames as usize;
    config.train_batch_size = case.batch as usize;
    config.global_seed = case.seed as u64;
    config.cfg_random_null_text = false;
    config.cache_latents = true;
    config.gradient_checkpointing = savings.checkpointing;
    config.use_8bit_adam = savings.adam8bit;
    config.device = match case.device {
        Device::Cuda(index) => DeviceChoice::Cuda(index),
        _ => DeviceChoice::Cpu,
    };
    config.precision = Precision::of(case.kind);
    config
}

/// Clips of noise.
fn samples(case: &Case) -> Vec<Sample> {
    tch::manual_seed(case.seed);
    let sample = |position: i64| {
        let pixels = Tensor::rand([case.frames, 3, case.size, case.size], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
        Sample {
            position: position as u64,
            id: format!("noise-{position}"),
            caption: "a red circle moving left".into(),
            pixels: Vec::try_from(pixels.view(-1)).expect("a flat tensor of floats"),
            frames: case.frames as usize,
            height: case.size as usize,
            width: case.size as usize,
            encoded: None,
        }
    };
    (0..case.batch).map(sample).collect()
}
