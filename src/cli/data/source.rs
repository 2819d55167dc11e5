//! What a command of `animatediff data` is about: the clips of a training run, as one of its stages takes them.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cli::clips::Clips;
use crate::train::Stage;

/// A training configuration, or shorthands for its `train_data`.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Source {
    /// Configuration of a training run (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any key of the configuration, such as train_data.sample_size=128; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The stage that is to be trained: motion or motionlora, or, on single frames, adapter, image or vae
    #[arg(long, default_value = "motion", value_parser = parse_stage)]
    pub stage: Stage,
    #[command(flatten)]
    clips: Clips,
}

impl Source {
    /// The shorthands as settings, before those that are given as such.
    pub fn overrides(&self) -> Vec<String> {
        self.clips.settings().into_iter().chain(self.set.iter().cloned()).collect()
    }
}

fn parse_stage(text: &str) -> Result<Stage, String> {
    [Stage::Motion, Stage::MotionLora, Stage::Adapter, Stage::Image, Stage::Vae]
        .into_iter()
        .find(|stage| stage.to_string() == text)
        .ok_or_else(|| "motion, motionlora, adapter, image or vae is expected".into())
}
