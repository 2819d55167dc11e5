//! What several claims need: the trained parts, the prompts, the samples that they share.

use std::path::PathBuf;

use anyhow::Result;

use super::{Lab, named, sampling::Order, sets, training::Training};
use crate::{
    clip::Clip,
    data::{
        Size, augment,
        shapes::{Scene, Split, Style},
    },
    train::Stage,
};

/// Keeps the scenes of prompts apart from those of training.
pub(super) const PROMPTS: u64 = 0x7072_6f6d_7074;
/// Likewise, of stills.
pub(super) const STILLS: u64 = 0x7374_696c_6c73;

/// Keys that turn a module into one of temporal convolutions.
const CONVOLUTION: &str = "unet_additional_kwargs.motion_module_type=Convolution";

impl Lab<'_> {
    /// Stage 1: the domain adapter.
    pub(super) fn adapter(&mut self) -> Result<PathBuf> {
        let (table, folder) = self.videos()?;
        self.train(&Training {
            name: "adapter",
            stage: Stage::Adapter,
            config: "adapter",
            set: Vec::new(),
            most: None,
            data: (table, Some(folder)),
            motion: None,
            adapter: None,
        })
    }

    /// Stage 2 on top of stage 1: the motion module that most claims are about.
    pub(super) fn module(&mut self) -> Result<PathBuf> {
        let adapter = self.adapter()?;
        self.motion("module", Some(adapter), Vec::new(), None)
    }

    /// Stage 2 alone, for the look: for fewer updates.
    pub(super) fn module_without_adapter(&mut self) -> Result<PathBuf> {
        let most = self.budget().updates_without_adapter;
        self.motion("module-without-adapter", None, Vec::new(), Some(most))
    }

    /// Stage 2 on top of stage 1, of temporal convolutions.
    pub(super) fn convolution(&mut self) -> Result<PathBuf> {
        let adapter = self.adapter()?;
        self.motion("convolution", Some(adapter), vec![CONVOLUTION.into()], None)
    }

    fn motion(&mut self, name: &str, adapter: Option<PathBuf>, set: Vec<String>, most: Option<i64>) -> Result<PathBuf> {
        let (table, folder) = self.videos()?;
        let data = (table, Some(folder));
        self.train(&Training { name, stage: Stage::Motion, config: "motion", set, most, data, motion: None, adapter })
    }

    /// Stage 3: a MotionLoRA of `rank` from `clips` clips of the camera move `motion`.
    pub(super) fn motion_lora(&mut self, motion: augment::Motion, clips: usize, rank: i64) -> Result<PathBuf> {
        let module = self.module()?;
        let folder = self.references(motion)?;
        self.train(&Training {
            name: &format!("{}-{clips}-clips-rank-{rank}", named(&motion)),
            stage: Stage::MotionLora,
            config: "motionlora",
            set: vec![format!("lora.rank={rank}")],
            most: None,
            data: (folder.join(format!("first-{clips}.csv")), Some(folder)),
            motion: Some(module),
            adapter: None,
        })
    }

    /// A personalised model: the base, fine-tuned on stills in `style`.
    pub(super) fn personalised(&mut self, style: Style) -> Result<PathBuf> {
        let table = self.stills(style)?;
        self.train(&Training {
            name: &format!("style-{}", named(&style)),
            stage: Stage::Image,
            config: "style",
            set: Vec::new(),
            most: None,
            data: (table, None),
            motion: None,
            adapter: None,
        })
    }

    /// The scenes of the prompts for motion: combinations that were trained on, then as many that were held out.
    pub(super) fn scenes(&self) -> (Vec<Scene>, Vec<Scene>) {
        let half = self.budget().prompts / 2;
        (scenes(self.seed() ^ PROMPTS, half, Split::Seen), scenes(self.seed() ^ PROMPTS, half, Split::HeldOut))
    }

    /// The scenes of `count` prompts of any combination.
    pub(super) fn any_scenes(&self, count: usize) -> Vec<Scene> {
        scenes(self.seed() ^ PROMPTS, count, Split::All)
    }

    /// Scenes that stand still, on backgrounds that show what a camera does.
    pub(super) fn standing(&self, count: usize) -> Vec<Scene> {
        (0..count as u64).map(|index| sets::reference(self.seed() ^ PROMPTS, index)).collect()
    }

    /// Prompts for stills.
    pub(super) fn still_prompts(&self, count: usize) -> Vec<String> {
        (0..count as u64).map(|index| Scene::still(self.seed() ^ STILLS, index).still_caption()).collect()
    }

    /// An order for animations from the base with `motion`, and nothing else.
    pub(super) fn order(&self, name: &str, motion: Option<PathBuf>, scenes: &[Scene]) -> Order {
        Order {
            name: name.into(),
            base: self.settings.base.clone(),
            motion,
            adapter: None,
            motion_loras: Vec::new(),
            prompts: scenes.iter().map(Scene::caption).collect(),
            frames: self.budget().frames,
            first_seed: 1000 * (self.seed() as i64 + 1),
        }
    }

    /// Animations of both halves of the prompts, made with `motion` alone: the adapter is dropped.
    pub(super) fn animations(&mut self, name: &str, motion: Option<PathBuf>) -> Result<Vec<Clip>> {
        let (mut scenes, held_out) = self.scenes();
        scenes.extend(held_out);
        let order = self.order(name, motion, &scenes);
        self.shoot(&order)
    }

    /// The scenes as they are rendered, taken apart like training clips: every other frame.
    pub(super) fn rendered(&self, scenes: &[Scene]) -> Vec<Clip> {
        scenes.iter().map(|scene| rendered(scene, Style::Flat, self.budget().frames)).collect()
    }
}

/// The first `frames` frames of a rendered scene, every other one of a training clip's: 8 at most.
pub fn rendered(scene: &Scene, style: Style, frames: usize) -> Clip {
    let clip = scene.render(style, Size::square(64), sets::FRAMES, sets::FPS);
    Clip { frames: clip.frames.into_iter().step_by(2).take(frames).collect(), fps: clip.fps }
}

/// The scenes of `count` prompts.
pub fn scenes(seed: u64, count: usize, split: Split) -> Vec<Scene> {
    (0..count as u64).map(|index| Scene::draw(seed, index, split)).collect()
}
