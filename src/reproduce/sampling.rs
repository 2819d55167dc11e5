//! Samples: many clips from the same networks, a batch at a time.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;
use tch::{Kind, Tensor};

use super::{
    lab::{Lab, stop},
    sets::FPS,
    strip,
};
use crate::{
    assemble::{Base, Motion},
    clip::Clip,
    device::Precision,
    sample::{Cast, Request, Studio, reconstruct},
};

/// What is sampled, from which networks.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the step.
    pub name: String,
    /// The base model's folder.
    pub base: PathBuf,
    /// The motion module; without it, each frame is a picture of its own.
    pub motion: Option<PathBuf>,
    /// The domain adapter and its scale.
    pub adapter: Option<(PathBuf, f64)>,
    /// MotionLoRAs and their scales.
    pub motion_loras: Vec<(PathBuf, f64)>,
    /// One clip each.
    pub prompts: Vec<String>,
    /// Frames per clip.
    pub frames: usize,
    /// Which noise the first clip starts from; the next ones have the numbers after it.
    pub first_seed: i64,
}

impl Order {
    /// Reads its networks; they are sampled on the schedule that the motion module was trained on.
    pub fn cast(&self) -> Result<Cast> {
        let motion = self.motion.as_deref().map(|path| Motion::read(path, None)).transpose()?;
        Ok(Cast { motion, adapter: self.adapter.clone(), motion_loras: self.motion_loras.clone(), ..Cast::default() })
    }
}

/// How clips are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct How {
    /// Denoising steps.
    pub steps: i64,
    /// Classifier-free guidance.
    pub guidance_scale: f64,
    /// Clips in one batch.
    pub batch: usize,
}

impl Lab<'_> {
    /// The clips of `order`.
    pub fn shoot(&mut self, order: &Order) -> Result<Vec<Clip>> {
        let budget = self.budget();
        let how = How { steps: budget.sampling_steps, guidance_scale: budget.guidance_scale, batch: budget.batch };
        let scaled = |lab: &mut Lab, files: &[(PathBuf, f64)]| -> Result<Vec<_>> {
            files.iter().map(|(path, scale)| Ok(json!([lab.digest(path)?, scale]))).collect()
        };
        let inputs = json!({
            "base": self.digest(&order.base)?,
            "motion": order.motion.as_deref().map(|path| self.digest(path)).transpose()?,
            "adapter": scaled(self, order.adapter.as_slice())?,
            "motion_loras": scaled(self, &order.motion_loras)?,
            "prompts": order.prompts,
            "frames": order.frames,
            "first_seed": order.first_seed,
            "steps": how.steps,
            "guidance_scale": how.guidance_scale,
        });
        let folder = self.step(&order.name, inputs, |lab, folder, _| {
            let studio = lab.studio(order)?;
            let title = lab.title(&order.name);
            lab.watcher.begun(&title, order.prompts.len() as u64 * how.steps as u64);
            let (watcher, interrupt) = (&mut *lab.watcher, &lab.interrupt);
            let clips = shoot(&studio, order, how, |done| {
                watcher.at(done, "denoising".into());
                stop(interrupt)
            })?;
            strip::write(&folder.join("clips.png"), &clips)?;
            Ok(json!({"clips": clips.len()}))
        })?;
        strip::read(&folder.join("clips.png"), order.prompts.len(), order.frames, FPS)
    }

    /// What the base's VAE makes of `clips`.
    pub fn through_vae(&mut self, clips: &[Clip]) -> Result<Vec<Clip>> {
        let frames = clips.first().map_or(0, |clip| clip.frames.len());
        let mut hasher = blake3::Hasher::new();
        for frame in clips.iter().flat_map(|clip| &clip.frames) {
            hasher.update(&frame.rgb);
        }
        let base = self.settings.base.clone();
        let inputs = json!({"base": self.digest(&base)?, "clips": hasher.finalize().to_hex().as_str()});
        let folder = self.step("through-the-vae", inputs, |lab, folder, _| {
            let title = lab.title("through the vae");
            lab.watcher.begun(&title, clips.len() as u64);
            let vae = lab.base.vae(lab.device, Kind::Float)?;
            let mut again = Vec::new();
            for clip in clips {
                lab.check()?;
                let frames = clip.frames.iter().map(|frame| reconstruct(&vae, frame, lab.device));
                again.push(Clip { frames: frames.collect(), fps: clip.fps });
                lab.watcher.at(again.len() as u64, String::new());
            }
            strip::write(&folder.join("clips.png"), &again)?;
            Ok(json!({"clips": clips.len()}))
        })?;
        strip::read(&folder.join("clips.png"), clips.len(), frames, FPS)
    }

    fn studio(&self, order: &Order) -> Result<Studio> {
        let base = Base::open(&order.base)?;
        Ok(Studio::open(&base, order.cast()?, self.device, Precision::Auto.kind(self.device))?)
    }
}

/// The clips of `order` from `studio`, which was opened for it. `tell` hears how many steps of clips are done, and may stop
/// the work with an error.
pub fn shoot(studio: &Studio, order: &Order, how: How, mut tell: impl FnMut(u64) -> Result<()>) -> Result<Vec<Clip>> {
    let pipeline = studio.pipeline();
    let side = studio.native_size();
    let request = |(index, prompt): (usize, &String)| Request {
        prompt: prompt.clone(),
        negative_prompt: String::new(),
        seed: order.first_seed + index as i64,
        steps: how.steps,
        guidance_scale: how.guidance_scale,
        width: side,
        height: side,
        frames: order.frames as i64,
    };
    let requests: Vec<Request> = order.prompts.iter().enumerate().map(request).collect();
    let mut clips = Vec::new();
    for batch in requests.chunks(how.batch) {
        let noise: Vec<Tensor> = batch.iter().map(|request| pipeline.noise(request)).collect();
        let before = (clips.len() as i64 * how.steps) as u64;
        let latents = pipeline.denoise_together(batch, &Tensor::cat(&noise, 0), |step| {
            tell(before + (step as u64 + 1) * batch.len() as u64)
        })?;
        let finite = latents.isfinite().all().int64_value(&[]) == 1;
        ensure!(finite, "{}: the latents became NaN or infinite; the training has gone wrong", order.name);
        for row in 0..batch.len() as i64 {
            clips.push(Clip { frames: pipeline.decode(&latents.narrow(0, row, 1)), fps: FPS });
        }
    }
    Ok(clips)
}
