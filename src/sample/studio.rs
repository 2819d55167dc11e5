//! The networks that sampling needs, put together from files: base, motion module, adapter, MotionLoRAs.
//!
//! Owns what a [`Pipeline`] borrows. Who samples what, and what becomes of the frames, is the caller's.

use std::path::PathBuf;

use tch::{Device, Kind};

use super::Pipeline;
use crate::{
    assemble::{AssembleError, Base, Motion, UNetParts, read_adapter, read_motion_lora},
    diffusion::{self, NoiseSchedule},
    model::{
        clip::TextEncoder,
        unet::{UNet, motion},
        vae::Vae,
    },
    nn::Plan,
    tokenizer::Tokenizer,
};

/// What goes into the UNet beside the base, and the schedule it is sampled with.
#[derive(Default)]
pub struct Cast {
    /// The motion module; without one, every frame is a picture of its own.
    pub motion: Option<Motion>,
    /// The domain adapter and its scale.
    pub adapter: Option<(PathBuf, f64)>,
    /// MotionLoRAs and their scales.
    pub motion_loras: Vec<(PathBuf, f64)>,
    /// Noise schedule.
    pub noise_scheduler_kwargs: diffusion::Config,
}

/// Networks that are ready to sample.
#[derive(Debug)]
pub struct Studio {
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    vae: Vae,
    unet: UNet,
    motion: Option<motion::Config>,
    schedule: NoiseSchedule,
    native_size: i64,
    device: Device,
    kind: Kind,
}

impl Studio {
    /// Reads all weights of `base` and `cast`; the UNet is kept, and computes, in `kind`.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit the base.
    pub fn open(base: &Base, cast: Cast, device: Device, kind: Kind) -> Result<Studio, AssembleError> {
        let schedule = NoiseSchedule::new(&cast.noise_scheduler_kwargs);
        let motion = cast.motion.as_ref().map(|motion| motion.config.clone());
        let mut parts = UNetParts::new(base);
        parts.motion = cast.motion;
        if let Some((path, scale)) = &cast.adapter {
            parts.merged.push((read_adapter(path)?, *scale));
        }
        for (path, scale) in &cast.motion_loras {
            parts.merged.push((read_motion_lora(path)?, *scale));
        }
        let (unet, _) = parts.build(Plan::frozen(), device, kind)?;
        let (text_encoder, _) = base.text_encoder(Plan::frozen(), device, Kind::Float)?;
        let (tokenizer, vae) = (base.tokenizer()?, base.vae(device, Kind::Float)?);
        let native_size = base.unet.sample_size * base.vae.downscale();
        Ok(Studio { tokenizer, text_encoder, vae, unet, motion, schedule, native_size, device, kind })
    }

    /// The motion module's architecture, where there is one.
    pub fn motion(&self) -> Option<&motion::Config> {
        self.motion.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The side, in pixels, of the pictures that the base was made for.
    pub fn native_size(&self) -> i64 {
        self.native_size
    }

    /// The kind that the UNet computes in.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Sampling with these networks.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            vae: &self.vae,
            unet: &self.unet,
            schedule: &self.schedule,
            device: self.device,
            kind: self.kind,
        }
    }
}
