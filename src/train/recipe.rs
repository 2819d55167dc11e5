//! What a stage means for the networks. The only place that tells stages apart.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::Config;
use crate::{
    assemble::{AssembleError, Base, Motion, UNetParts, read_adapter, read_motion_lora, read_unet},
    data,
    model::{
        clip::TextEncoder,
        unet::{UNet, motion},
    },
    nn::{LoraPlan, Pattern, Plan, Store},
    weights,
};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Stage 1: low-rank pairs on the image attention, on single frames.
    Adapter,
    /// Stage 2: the motion module, on clips.
    Motion,
    /// Stage 3: low-rank pairs on the motion module, on a few clips.
    MotionLora,
    /// The whole image UNet, on single frames.
    Image,
    /// The VAE, on single frames.
    Vae,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Stage::Adapter => "adapter",
            Stage::Motion => "motion",
            Stage::MotionLora => "motionlora",
            Stage::Image => "image",
            Stage::Vae => "vae",
        })
    }
}

/// A stage as data: what is trained, what is loaded, how many frames an item has.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Which stage this is, for names and metadata.
    pub stage: Stage,
    /// What of the UNet is trained, or of the VAE.
    pub plan: Plan,
    /// What of the text encoder is trained.
    pub text_plan: Plan,
    /// Whether the UNet gets a motion module.
    pub moves: bool,
    /// Frames per item.
    pub frames: usize,
}

impl Recipe {
    /// The recipe of `stage` under `config`.
    pub fn new(stage: Stage, config: &Config) -> Recipe {
        let patterns = |default: &str| {
            let names = config.trainable_modules.clone().unwrap_or_else(|| vec![default.into()]);
            names.into_iter().map(Pattern::new).collect::<Vec<_>>()
        };
        let low_rank = |place: &str| {
            let targets = ["to_q", "to_k", "to_v", "to_out.0"].map(|layer| Pattern::new(format!("{place}*.{layer}")));
            Plan {
                lora: Some(LoraPlan { targets: targets.to_vec(), rank: config.lora.rank, scale: config.lora.scale() }),
                ..Plan::frozen()
            }
        };
        let (plan, moves) = match stage {
            Stage::Adapter => (low_rank(".attentions."), false),
            Stage::Motion => {
                let trained = patterns("motion_modules.");
                (Plan { trained, fresh: fresh_motion(config), ..Plan::frozen() }, true)
            }
            Stage::MotionLora => (low_rank(".motion_modules."), true),
            Stage::Image | Stage::Vae => (Plan { trained: patterns("."), ..Plan::frozen() }, false),
        };
        let text_plan = if config.train_text_encoder {
            Plan { trained: vec![Pattern::new(".")], ..Plan::frozen() }
        } else {
            Plan::frozen()
        };
        let frames = if moves { config.train_data.sample_n_frames } else { 1 };
        Recipe { stage, plan, text_plan, moves, frames }
    }

    /// The clips of `config`, of as many frames as this stage takes.
    pub fn train_data(&self, config: &Config) -> data::Config {
        data::Config { sample_n_frames: self.frames, ..config.train_data.clone() }
    }

    /// The UNet with everything that was trained before it, and its tensors.
    pub fn unet(
        &self,
        config: &Config,
        base: &Base,
        device: Device,
        kind: Kind,
    ) -> Result<(UNet, Store, Option<motion::Config>), AssembleError> {
        let mut parts = UNetParts::new(base);
        if self.moves {
            parts.motion = Some(match &config.motion {
                Some(path) => Motion::read(path, config.unet_additional_kwargs.clone())?,
                None => Motion::fresh(config.unet_additional_kwargs.clone().unwrap_or_else(motion::Config::v3)),
            });
        }
        if let Some(path) = &config.adapter {
            parts.merged.push((read_adapter(path)?, config.adapter_scale));
        }
        if let Some(path) = &config.unet_checkpoint_path {
            parts.replaced = Some(read_unet(path)?);
        }
        if let Some(path) = &config.init_lora {
            // Files hold `up` with the scale folded in; the layer multiplies by it again.
            parts.added = Some(self.read_lora(path, config.lora.rank)?.scaled(1.0 / config.lora.scale()));
        }
        let architecture = parts.motion.as_ref().map(|motion| motion.config.clone());
        let (unet, store) = parts.build(self.plan.clone(), device, kind)?;
        Ok((unet.with_checkpointing(config.gradient_checkpointing), store, architecture))
    }

    /// The text encoder and its tensors.
    pub fn text_encoder(&self, base: &Base, device: Device) -> Result<(TextEncoder, Store), AssembleError> {
        base.text_encoder(self.text_plan.clone(), device, Kind::Float)
    }

    fn read_lora(&self, path: &Path, rank: i64) -> Result<weights::Lora, AssembleError> {
        let lora = if self.moves { read_motion_lora(path)? } else { read_adapter(path)? };
        match lora.rank() {
            Some(found) if found != rank => Err(AssembleError::Rank { path: path.to_owned(), found, wanted: rank }),
            _ => Ok(lora),
        }
    }
}

/// A new module is initialised; one that is read must be complete.
fn fresh_motion(config: &Config) -> Vec<Pattern> {
    if config.motion.is_some() { Vec::new() } else { vec![Pattern::new("motion_modules.")] }
}
