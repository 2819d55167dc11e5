//! What must be the same for a resumed run to equal the undisturbed one, as values that a checkpoint keeps.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};
use tch::Kind;

use super::{Config, recipe::Recipe};
use crate::{
    assemble::Base,
    data::{Cache, Dataset},
    model::unet::motion,
    weights::{self, NamedTensors, WeightsError},
};

const CLIPS_PER_STEP: &str = "clips_per_step";
/// What the keys of weights begin with.
const WEIGHTS: &str = "weights.";
/// Bytes of each tensor that its fingerprint is made of.
const LOOKED_AT: usize = 256;

/// The identity of a run of `recipe` under `config` on what was [`loaded`].
pub(super) fn of(
    config: &Config,
    recipe: &Recipe,
    dataset: &Dataset,
    cache: Option<&Cache>,
    loaded: &Map<String, Value>,
) -> Value {
    let data = &config.train_data;
    let mut identity = json!({
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
        "adapter_scale": config.adapter_scale,
        "noise_scheduler_kwargs": config.noise_scheduler_kwargs.process(),
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
    });
    identity.as_object_mut().expect("an object").extend(loaded.clone());
    identity
}

/// The part of an identity that is in files: what the networks that are trained on begin with, by its content, so that a file may
/// move and must not change; and the `architecture` of the motion module.
pub(super) fn loaded(
    config: &Config,
    base: &Base,
    architecture: Option<&motion::Config>,
) -> Result<Map<String, Value>> {
    let read = |path: &Option<PathBuf>| path.as_ref().map(|path| weights::read(path)).transpose();
    let file = |path: &Option<PathBuf>| Ok::<_, WeightsError>(read(path)?.map(|file| file.tensors));
    let parts = [
        ("base", Some(base.unet_tensors()?)),
        ("vae", Some(base.vae_tensors()?)),
        ("text_encoder", Some(base.text_tensors()?)),
        ("motion", file(&config.motion)?),
        ("adapter", file(&config.adapter)?),
        ("unet_checkpoint_path", file(&config.unet_checkpoint_path)?),
    ];
    let mut loaded = Map::from_iter([("unet_additional_kwargs".to_owned(), json!(architecture))]);
    loaded.extend(
        parts.iter().map(|(part, tensors)| (format!("{WEIGHTS}{part}"), json!(tensors.as_ref().map(fingerprint)))),
    );
    Ok(loaded)
}

/// Of the names and shapes of `tensors`, and of the first bytes of each: what was trained differs in them.
fn fingerprint(tensors: &NamedTensors) -> String {
    let mut hasher = blake3::Hasher::new();
    for name in tensors.names() {
        hasher.update(name.as_bytes()).update(format!("{:?}", tensors.shape(name)).as_bytes());
        match tensors.bytes(name) {
            Some((_, bytes)) => drop(hasher.update(&bytes[..bytes.len().min(LOOKED_AT)])),
            None => {
                let values = tensors.get(name).map(|tensor| tensor.flatten(0, -1).to_kind(Kind::Float));
                let first = values.map(|values| values.slice(0, 0, LOOKED_AT as i64 / 4, 1).contiguous());
                let bytes = first.map(|first| Vec::<f32>::try_from(first).expect("float32")).unwrap_or_default();
                for value in bytes {
                    hasher.update(&value.to_le_bytes());
                }
            }
        }
    }
    hasher.finalize().to_hex().as_str()[..16].to_owned()
}

/// Whether a checkpoint that `saved` its identity can be gone on from; `default` is what is meant where it is silent.
pub(super) fn check_same(saved: &Value, now: &Value, default: &Value) -> Result<()> {
    for (key, value) in now.as_object().expect("an object") {
        let before = completed(saved.get(key), value, &default[key]);
        ensure!(
            before == *value || key != CLIPS_PER_STEP,
            "an update was on {before} clips and is now on {value}, so that the same clips would not come in the same updates: keep \
             train_batch_size x gradient_accumulation_steps x processes, or start a new run from the exported weights"
        );
        if let Some(part) = key.strip_prefix(WEIGHTS) {
            ensure!(
                before == *value,
                "the weights that the run was started on are not these: `{part}` was {before} and is now {value} (by its content). \
                 Name the file that it was, or start a new run from the exported weights"
            );
        }
        ensure!(
            before == *value,
            "`{key}` was {before} and is now {value}, and what is resumed goes on as it was begun. Start a new run instead, from \
             the exported weights"
        );
    }
    Ok(())
}

/// What was saved, with the default where it is silent, and without what does not count any more.
fn completed(saved: Option<&Value>, now: &Value, default: &Value) -> Value {
    match (saved, now, default) {
        (None, ..) => default.clone(),
        (Some(Value::Object(saved)), Value::Object(now), Value::Object(default)) => {
            let value = |key: &String| saved.get(key).unwrap_or(&default[key]).clone();
            Value::Object(now.keys().map(|key| (key.clone(), value(key))).collect())
        }
        (Some(saved), ..) => saved.clone(),
    }
}
