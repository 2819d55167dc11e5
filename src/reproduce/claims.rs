//! The claims: what each is about, and its experiment.

mod adapter;
mod camera;
mod convolution;
mod one_clip;
mod personalised;
mod prompted;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::{Finding, Lab, named};

/// A claim of the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// The motion module learns motion that follows the prompt
    PromptedMotion,
    /// The frames belong to one clip
    OneClip,
    /// The module plugs into personalised models that it never saw
    Personalised,
    /// The domain adapter keeps the look of the videos out
    Adapter,
    /// A MotionLoRA needs few clips and few parameters
    MotionLora,
    /// Temporal Transformer against temporal convolution
    Convolution,
}

impl Claim {
    /// Its name, as `--only` takes it.
    pub fn name(self) -> String {
        named(&self)
    }

    /// The claim in words.
    pub fn title(self) -> &'static str {
        match self {
            Claim::PromptedMotion => "the motion module learns motion that follows the prompt",
            Claim::OneClip => "the frames belong to one clip",
            Claim::Personalised => "it plugs into personalised models it never saw",
            Claim::Adapter => "the domain adapter keeps the video look out",
            Claim::MotionLora => "a MotionLoRA needs few clips and few parameters",
            Claim::Convolution => "temporal Transformer against temporal convolution",
        }
    }

    /// Its experiment in words.
    pub fn experiment(self) -> &'static str {
        match self {
            Claim::PromptedMotion => prompted::EXPERIMENT,
            Claim::OneClip => one_clip::EXPERIMENT,
            Claim::Personalised => personalised::EXPERIMENT,
            Claim::Adapter => adapter::EXPERIMENT,
            Claim::MotionLora => camera::EXPERIMENT,
            Claim::Convolution => convolution::EXPERIMENT,
        }
    }

    /// Does its experiment.
    pub fn examine(self, lab: &mut Lab) -> Result<Finding> {
        match self {
            Claim::PromptedMotion => prompted::examine(lab),
            Claim::OneClip => one_clip::examine(lab),
            Claim::Personalised => personalised::examine(lab),
            Claim::Adapter => adapter::examine(lab),
            Claim::MotionLora => camera::examine(lab),
            Claim::Convolution => convolution::examine(lab),
        }
    }
}
