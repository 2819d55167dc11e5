//! The base model: a diffusers folder.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tch::{Device, Kind};

use super::{AssembleError, build};
use crate::{
    diffusion,
    model::{
        clip::{self, TextEncoder},
        unet,
        vae::{self, Vae},
    },
    nn::{Params, Plan, Store},
    tokenizer::Tokenizer,
    weights::{NamedTensors, formats, read_component},
};

/// A Stable Diffusion 1.x model in the diffusers layout; its configurations are read, its weights are not yet.
#[derive(Debug)]
pub struct Base {
    /// Folder.
    pub dir: PathBuf,
    /// `unet/config.json`.
    pub unet: unet::Config,
    /// `vae/config.json`.
    pub vae: vae::Config,
    /// `text_encoder/config.json`.
    pub text: clip::Config,
    /// The noise it was trained on, of `scheduler/scheduler_config.json`; Stable Diffusion's own where there is no such file.
    pub noise_scheduler_kwargs: diffusion::Config,
}

impl Base {
    /// Reads the configurations and refuses models of another family.
    pub fn open(dir: &Path) -> Result<Base, AssembleError> {
        let not = |reason: &str| AssembleError::NotABase { path: dir.to_owned(), reason: reason.into() };
        if dir.is_file() {
            return Err(not("it is a file; give a folder in the diffusers layout (single files are not read yet)"));
        }
        if !dir.is_dir() {
            return Err(not("there is no such folder; `animatediff init --preset tiny DIR` makes a random one to try"));
        }
        if !dir.join("unet/config.json").exists() {
            return Err(not("it has no unet/config.json; expected the folders unet, vae, text_encoder, tokenizer"));
        }
        if dir.join("text_encoder_2").exists() {
            return Err(not(
                "it is a Stable Diffusion XL model; AnimateDiff's modules here are for Stable Diffusion 1.x",
            ));
        }
        let unet_path = dir.join("unet/config.json");
        let unet = unet::Config::from_json(&read_json(&unet_path)?).map_err(|error| {
            match error.downcast::<unet::Unsupported>() {
                Ok(reason) => AssembleError::Unsupported { path: unet_path.clone(), reason: *reason },
                Err(error) => AssembleError::Config { path: unet_path.clone(), reason: error.to_string() },
            }
        })?;
        let base = Base {
            dir: dir.to_owned(),
            unet,
            vae: read_config(dir, "vae")?,
            text: read_config(dir, "text_encoder")?,
            noise_scheduler_kwargs: read_schedule(&dir.join(SCHEDULER))?,
        };
        base.check()?;
        Ok(base)
    }

    fn check(&self) -> Result<(), AssembleError> {
        for (part, found) in [("vae", self.vae.check()), ("text_encoder", self.text.check())] {
            let path = self.dir.join(part).join("config.json");
            found.map_err(|reason| AssembleError::Config { path, reason })?;
        }
        if self.text.hidden_size != self.unet.cross_attention_dim {
            return Err(AssembleError::NotABase {
                path: self.dir.clone(),
                reason: format!(
                    "its text encoder is {} wide and its UNet expects {}: the folders are from different models",
                    self.text.hidden_size, self.unet.cross_attention_dim
                ),
            });
        }
        if self.vae.latent_channels != self.unet.in_channels {
            return Err(AssembleError::NotABase {
                path: self.dir.clone(),
                reason: format!(
                    "its VAE has {} latent channels and its UNet takes {}: the folders are from different models",
                    self.vae.latent_channels, self.unet.in_channels
                ),
            });
        }
        Ok(())
    }

    /// The tokenizer, whose prompts are no longer than what the text encoder has places for.
    pub fn tokenizer(&self) -> Result<Tokenizer, AssembleError> {
        let tokenizer = Tokenizer::open(&self.dir.join("tokenizer"))?;
        let places = self.text.max_position_embeddings;
        if tokenizer.length() as i64 > places {
            let reason = format!(
                "`max_position_embeddings: {places}`: the tokenizer makes prompts of {} tokens (`model_max_length` of \
                 tokenizer/tokenizer_config.json, 77 where it says nothing)",
                tokenizer.length()
            );
            return Err(AssembleError::Config { path: self.dir.join("text_encoder/config.json"), reason });
        }
        Ok(tokenizer)
    }

    /// The text encoder, trained as `plan` says.
    pub fn text_encoder(&self, plan: Plan, device: Device, kind: Kind) -> Result<(TextEncoder, Store), AssembleError> {
        let dir = self.dir.join("text_encoder");
        let tensors = read_component(&dir, &["model", "pytorch_model"])?;
        let tensors = formats::clip_text().import(tensors, formats::looks_like("a text encoder"))?;
        let home = |_: &str| Some(dir.display().to_string());
        build("the text encoder", tensors, home, plan, device, kind, |params| TextEncoder::new(params, &self.text))
    }

    /// The VAE, frozen.
    pub fn vae(&self, device: Device, kind: Kind) -> Result<Vae, AssembleError> {
        Ok(self.trained_vae(Plan::frozen(), device, kind)?.0)
    }

    /// The VAE, trained as `plan` says, and its tensors.
    pub fn trained_vae(&self, plan: Plan, device: Device, kind: Kind) -> Result<(Vae, Store), AssembleError> {
        let dir = self.dir.join("vae");
        let tensors = read_component(&dir, &["diffusion_pytorch_model"])?;
        let tensors = formats::vae().import(tensors, formats::looks_like("a VAE"))?;
        let home = |_: &str| Some(dir.display().to_string());
        let new = |params: &Params| Vae::new(params, &self.vae);
        build("the VAE", tensors, home, plan, device, kind, new)
    }

    /// The UNet's tensors.
    pub fn unet_tensors(&self) -> Result<NamedTensors, AssembleError> {
        Ok(read_component(&self.dir.join("unet"), &["diffusion_pytorch_model"])?)
    }
}

/// Where a base says what noise it was trained on.
pub const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// The process that a base was trained on. How it is sampled is the sampler's choice: other keys are left alone.
fn read_schedule(path: &Path) -> Result<diffusion::Config, AssembleError> {
    let process = diffusion::Config::scaled_linear();
    if !path.exists() {
        return Ok(process);
    }
    let not = |reason: String| AssembleError::Config { path: path.to_owned(), reason };
    let json = read_json(path)?;
    for key in ["trained_betas", "rescale_betas_zero_snr"] {
        if !matches!(json.get(key), None | Some(serde_json::Value::Null | serde_json::Value::Bool(false))) {
            return Err(not(format!("`{key}` is not supported yet; a schedule of `beta_start` and `beta_end` is")));
        }
    }
    let told = serde_path_to_error::deserialize(json).map_err(|error| not(format!("not a noise schedule: {error}")))?;
    let process = process.with_process(told);
    process.check(1).map_err(|(key, message)| not(format!("`{key}`: {message}")))?;
    Ok(process)
}

fn read_json(path: &Path) -> Result<serde_json::Value, AssembleError> {
    let fail = |reason: String| AssembleError::Config { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| fail(format!("not JSON: {error}")))
}

fn read_config<T: DeserializeOwned>(dir: &Path, component: &str) -> Result<T, AssembleError> {
    let path = dir.join(component).join("config.json");
    serde_path_to_error::deserialize(read_json(&path)?)
        .map_err(|error| AssembleError::Config { path, reason: format!("not a configuration of this model: {error}") })
}
