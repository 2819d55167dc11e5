//! What a base, or animations from it, make of prompts of the world of shapes: marks, and pictures to look at.

use anyhow::Result;
use serde::Serialize;

use super::{
    measure::{Jump, Verdict, jump_ratio, jumps, psnr, share, shows, verdicts},
    sampling::{How, Order, shoot},
    subjects::{PROMPTS, STILLS, rendered, scenes},
};
use crate::{
    assemble::Base,
    clip::Clip,
    data::{
        Size,
        shapes::{Scene, Split, Style},
    },
    device::Precision,
    sample::{Studio, reconstruct},
};

/// What is examined, and in what.
#[derive(Clone, Debug)]
pub struct Exam {
    /// The networks; prompts are filled in.
    pub order: Order,
    /// How it is sampled.
    pub how: How,
    /// Number of prompts.
    pub prompts: usize,
    /// Of which combinations; of animations only.
    pub split: Split,
    /// The style that the base paints in.
    pub style: Style,
    /// Seed of prompts.
    pub seed: u64,
    /// Where it is computed.
    pub device: tch::Device,
}

/// The marks, as `--json` has them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Marks {
    /// Number of prompts.
    pub prompts: usize,
    /// Share of clips whose tracked motion is the prompted one; of animations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompted_motion: Option<f64>,
    /// Share of pictures, or of the middle frames of clips, that show the prompted shape in its colour.
    pub shape_and_colour: f64,
    /// Share of clips that do both; of animations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_three: Option<f64>,
    /// Share of clips in which the shape can be followed; of animations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followed: Option<f64>,
    /// How much the shape's place, its colour and the background change from frame to frame, in multiples of the same scenes
    /// rendered; of the animations in which the shape can be followed, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jumps: Option<Jump>,
    /// How well the VAE keeps rendered pictures, in dB; of a base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_psnr_db: Option<f64>,
    /// Share of them whose shape and colour can still be told: what the UNet could reach at best; of a base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_shape_and_colour: Option<f64>,
}

/// One sample and what is thought of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The prompt.
    pub prompt: String,
    /// What was made of it.
    pub clip: Clip,
    /// In words.
    pub verdict: String,
    /// Whether it is as prompted.
    pub right: bool,
}

impl Exam {
    /// Samples and judges. `tell` hears how many of how many steps are done, and may stop the work with an error.
    pub fn sit(mut self, mut tell: impl FnMut(u64, u64) -> Result<()>) -> Result<(Marks, Vec<Answer>)> {
        let base = Base::open(&self.order.base)?;
        let scenes = match self.order.motion {
            Some(_) => scenes(self.seed ^ PROMPTS, self.prompts, self.split),
            None => (0..self.prompts as u64).map(|index| Scene::still(self.seed ^ STILLS, index)).collect(),
        };
        let caption = if self.order.motion.is_some() { Scene::caption } else { Scene::still_caption };
        self.order.prompts = scenes.iter().map(caption).collect();
        let studio = Studio::open(&base, self.order.cast()?, self.device, Precision::Auto.kind(self.device))?;
        let total = (self.prompts as i64 * self.how.steps) as u64;
        let clips = shoot(&studio, &self.order, self.how, |done| tell(done, total))?;
        match self.order.motion {
            Some(_) => Ok(self.animations(clips, &scenes)),
            None => self.stills(&base, clips, &scenes),
        }
    }

    fn animations(&self, clips: Vec<Clip>, scenes: &[Scene]) -> (Marks, Vec<Answer>) {
        let verdicts = verdicts(&clips, scenes, self.style);
        let truth: Vec<Clip> = scenes.iter().map(|scene| rendered(scene, self.style, self.order.frames)).collect();
        let (own, real) = (jumps(&clips), jumps(&truth));
        let marks = Marks {
            prompts: self.prompts,
            prompted_motion: Some(share(&verdicts, |one| one.moves)),
            shape_and_colour: share(&verdicts, |one| one.shows),
            all_three: Some(share(&verdicts, |one| one.moves && one.shows)),
            followed: Some(own.len() as f64 / clips.len() as f64),
            jumps: (!own.is_empty() && !real.is_empty()).then(|| jump_ratio(&own, &real)),
            vae_psnr_db: None,
            vae_shape_and_colour: None,
        };
        let answer = |((clip, prompt), one): ((Clip, &String), &Verdict)| {
            let motion = one.motion.map_or("no motion that has a name", |motion| motion.name());
            let subject = if one.shows { "the right shape" } else { "another shape, or none" };
            Answer {
                prompt: prompt.clone(),
                clip,
                verdict: format!("{motion}; {subject}"),
                right: one.moves && one.shows,
            }
        };
        let answers = clips.into_iter().zip(&self.order.prompts).zip(&verdicts).map(answer);
        (marks, answers.collect())
    }

    fn stills(&self, base: &Base, clips: Vec<Clip>, scenes: &[Scene]) -> Result<(Marks, Vec<Answer>)> {
        let right =
            |(clip, scene): (&Clip, &Scene)| clip.frames.first().is_some_and(|one| shows(one, scene, self.style));
        let right: Vec<bool> = clips.iter().zip(scenes).map(right).collect();
        let vae = base.vae(self.device, tch::Kind::Float)?;
        let side = (base.unet.sample_size * base.vae.downscale()) as usize;
        let rendered: Vec<_> = scenes.iter().map(|scene| scene.frame(self.style, Size::square(side), 0.0)).collect();
        let again: Vec<_> = rendered.iter().map(|frame| reconstruct(&vae, frame, self.device)).collect();
        let kept: Vec<bool> = again.iter().zip(scenes).map(|(one, scene)| shows(one, scene, self.style)).collect();
        let marks = Marks {
            prompts: self.prompts,
            prompted_motion: None,
            shape_and_colour: share(&right, |right| *right),
            all_three: None,
            followed: None,
            jumps: None,
            vae_psnr_db: Some(psnr(&again, &rendered)),
            vae_shape_and_colour: Some(share(&kept, |kept| *kept)),
        };
        let answer = |((clip, prompt), &right): ((Clip, &String), &bool)| {
            let verdict = if right { "as prompted" } else { "another shape or colour, or none" };
            Answer { prompt: prompt.clone(), clip, verdict: verdict.into(), right }
        };
        let answers = clips.into_iter().zip(&self.order.prompts).zip(&right).map(answer);
        Ok((marks, answers.collect()))
    }
}
