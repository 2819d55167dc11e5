//! The networks that sampling needs, put together from files: base, motion module, adapter, MotionLoRAs.
//!
//! Owns what a [`Pipeline`] borrows. Who samples what, and what becomes of the frames, is the caller's.

use std::{path::PathBuf, rc::Rc};

use tch::{Device, Kind};

use super::{Networks, Pipeline};
use crate::{
    assemble::{AssembleError, Base, Motion, TextExtras, UNetParts, read_adapter, read_lora, read_motion_lora},
    diffusion::{self, NoiseSchedule},
    model::unet::motion,
    nn::Plan,
    tokenizer::Tokenizer,
    weights::{Embedding, LoraFile},
};

/// What goes into the networks beside the base, and the schedule they are sampled with.
#[derive(Default)]
pub struct Cast {
    /// The motion module; without one, every frame is a picture of its own.
    pub motion: Option<Motion>,
    /// The domain adapter and its scale.
    pub adapter: Option<(PathBuf, f64)>,
    /// MotionLoRAs and their scales.
    pub motion_loras: Vec<(PathBuf, f64)>,
    /// LoRAs on the UNet, the text encoder or both, and their scales.
    pub loras: Vec<(PathBuf, f64)>,
    /// Whether LoRAs are read as the official loader does, with alpha left out.
    pub ignore_alpha: bool,
    /// Textual-inversion embeddings.
    pub embeddings: Vec<PathBuf>,
    /// Noise schedule, where it is not [`Cast::schedule`]'s own choice.
    pub noise_scheduler_kwargs: Option<diffusion::Config>,
}

impl Cast {
    /// The given schedule; else the one that the motion module was trained on; else, for pictures, the one of `base`.
    pub fn schedule(&self, base: &Base) -> diffusion::Config {
        let modules = || self.motion.as_ref().map(|motion| motion.noise_scheduler_kwargs.clone());
        self.noise_scheduler_kwargs.clone().or_else(modules).unwrap_or_else(|| base.noise_scheduler_kwargs.clone())
    }
}

/// Networks that are ready to sample.
#[derive(Debug)]
pub struct Studio {
    networks: Networks,
    motion: Option<motion::Config>,
    native_size: i64,
}

impl Studio {
    /// Reads all weights of `base` and `cast`; the UNet is kept, and computes, in `kind`.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit the base.
    pub fn open(base: &Base, cast: Cast, device: Device, kind: Kind) -> Result<Studio, AssembleError> {
        let schedule = NoiseSchedule::new(&cast.schedule(base));
        let motion = cast.motion.as_ref().map(|motion| motion.config.clone());
        let mut parts = UNetParts::new(base);
        parts.motion = cast.motion;
        if let Some((path, scale)) = &cast.adapter {
            parts.merged.push((read_adapter(path)?, *scale));
        }
        for (path, scale) in &cast.motion_loras {
            parts.merged.push((read_motion_lora(path)?, *scale));
        }
        let mut extras = TextExtras::default();
        for (path, scale) in &cast.loras {
            let LoraFile { unet, text_encoder, .. } = read_lora(path, cast.ignore_alpha)?;
            parts.merged.push((unet, *scale));
            extras.loras.push((text_encoder, *scale));
        }
        for path in &cast.embeddings {
            extras.embeddings.extend(Embedding::read(path)?);
        }
        let (unet, _) = parts.build(Plan::only_used(), device, kind)?;
        let (text_encoder, _) = base.text_encoder_with(&extras, Plan::only_used(), device, Kind::Float)?;
        let vae_kind = if device == Device::Cpu && kind == Kind::BFloat16 { kind } else { Kind::Float };
        let (tokenizer, vae) = (base.tokenizer_with(&extras.embeddings)?, base.vae(device, vae_kind)?);
        let native_size = base.unet.sample_size * base.vae.downscale();
        let (tokenizer, text_encoder, vae) = (Rc::new(tokenizer), Rc::new(text_encoder), Rc::new(vae));
        let networks = Networks { tokenizer, text_encoder, vae, unet, schedule, device, aside: device, kind };
        Ok(Studio { networks, motion, native_size })
    }

    /// The motion module's architecture, where there is one.
    pub fn motion(&self) -> Option<&motion::Config> {
        self.motion.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.networks.tokenizer
    }

    /// The side, in pixels, of the pictures that the base was made for.
    pub fn native_size(&self) -> i64 {
        self.native_size
    }

    /// The kind that the UNet computes in.
    pub fn kind(&self) -> Kind {
        self.networks.kind
    }

    /// Sampling with these networks.
    pub fn pipeline(&self) -> Pipeline<'_> {
        self.networks.pipeline()
    }
}
