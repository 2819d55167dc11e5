//! What must be the same for a resumed run to equal the undisturbed one, as values that a checkpoint keeps.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Config, recipe::Recipe};
use crate::data::{Cache, Dataset};

const CLIPS_PER_STEP: &str = "clips_per_step";

/// The identity of a run of `recipe` under `config`.
pub(super) fn of(config: &Config, recipe: &Recipe, dataset: &Dataset, cache: Option<&Cache>) -> Value {
    let data = &config.train_data;
    json!({
        "stage": recipe.stage,
        "global_seed": config.global_seed,
        CLIPS_PER_STEP: config.clips_per_step(),
        "clips": dataset.len(),
        "train_data": dataset.fingerprint(),
        "sample_size": data.sample_size,
        "sample_n_frames": recipe.frames,
        "sample_stride": data.sample_stride,
        "horizontal_flip": data.horizontal_flip,
        "short_clips": data.short_clips,
        "cache": cache.map(|cache| &cache.manifest().form),
        "pretrained_model_path": config.pretrained_model_path,
        "adapter": config.adapter,
        "adapter_scale": config.adapter_scale,
        "noise_scheduler_kwargs": config.noise_scheduler_kwargs,
        "lora": config.lora,
        "vae": config.vae,
        "snr_gamma": config.snr_gamma,
        "noise_offset": config.noise_offset,
        "use_8bit_adam": config.use_8bit_adam,
        "use_ema": config.use_ema,
        "ema": config.ema,
        "debiased_estimation_loss": config.debiased_estimation_loss,
        "timestep_bias_strategy": config.timestep_bias_strategy,
        "timestep_bias_multiplier": config.timestep_bias_multiplier,
        "timestep_bias_portion": config.timestep_bias_portion,
        "cfg_random_null_text": config.cfg_random_null_text,
        "cfg_random_null_text_ratio": config.cfg_random_null_text_ratio,
    })
}

/// Whether a checkpoint that `saved` its identity can be gone on from; `default` is what is meant where it is silent.
pub(super) fn check_same(saved: &Value, now: &Value, default: &Value) -> Result<()> {
    for (key, value) in now.as_object().expect("an object") {
        let before = completed(saved.get(key), &default[key]);
        ensure!(
            before == *value || key != CLIPS_PER_STEP,
            "an update was on {before} clips and is now on {value}, so that the same clips would not come in the same updates: keep \
             train_batch_size x gradient_accumulation_steps x processes, or start a new run from the exported weights"
        );
        ensure!(
            before == *value,
            "`{key}` was {before} and is now {value}; a resumed run continues the same order of the same data. \
             Start a new run instead, from the exported weights"
        );
    }
    Ok(())
}

/// What was saved, with the default where it is silent.
fn completed(saved: Option<&Value>, default: &Value) -> Value {
    match (saved, default) {
        (None, default) => default.clone(),
        (Some(Value::Object(saved)), Value::Object(default)) => {
            let mut all = default.clone();
            all.extend(saved.clone());
            Value::Object(all)
        }
        (Some(saved), _) => saved.clone(),
    }
}
