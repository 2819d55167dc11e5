//! A base model's folder in the diffusers layout: its configuration files, and its weights.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    diffusion,
    model::{clip, unet, vae},
};

/// Writes `model_index.json`, the scheduler's and every component's `config.json` into `dir`.
pub fn write_configs(
    dir: &Path,
    unet: &unet::Config,
    vae: &vae::Config,
    text: &clip::Config,
    process: diffusion::Process,
) -> Result<()> {
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    let scheduler = json!({
        "_class_name": "DDIMScheduler",
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
    });
    let files = [
        ("model_index.json", index),
        ("scheduler/scheduler_config.json", with(json!(process), scheduler)),
        ("unet/config.json", unet_config(unet)),
        ("vae/config.json", vae_config(vae, unet.sample_size * vae.downscale())),
        ("text_encoder/config.json", text_config(text)),
    ];
    files.iter().try_for_each(|(name, json)| text_file(&dir.join(name), &format!("{json:#}\n")))
}

fn text_file(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("{}: cannot be written", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).with_context(failed)?;
    fs::write(path, text).with_context(failed)
}

/// `unet/config.json`.
pub fn unet_config(unet: &unet::Config) -> Value {
    with(json!(unet), json!({"_class_name": "UNet2DConditionModel"}))
}

/// `vae/config.json`, for pictures of `sample_size` pixels.
pub fn vae_config(vae: &vae::Config, sample_size: i64) -> Value {
    let levels = vae.block_out_channels.len();
    let extra = json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "sample_size": sample_size,
    });
    with(json!(vae), extra)
}

/// `text_encoder/config.json`.
pub fn text_config(text: &clip::Config) -> Value {
    let extra = json!({
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "projection_dim": text.hidden_size,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "bos_token_id": text.vocab_size - 2,
        "eos_token_id": text.vocab_size - 1,
        "pad_token_id": text.vocab_size - 1,
    });
    with(json!(text), extra)
}

fn with(config: Value, extra: Value) -> Value {
    let both = extra.as_object().into_iter().chain(config.as_object()).flatten();
    both.map(|(key, value)| (key.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}
