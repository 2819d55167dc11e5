//! Which clips a command of `animatediff data` is about: as a training run names them.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// A training configuration, or shorthands for its `train_data`.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Source {
    /// Configuration of a training run (YAML); its train_data is taken
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any key of the configuration, such as train_data.sample_size=128; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of clips with .txt captions (train_data.videos)
    #[arg(long, value_name = "DIR")]
    pub videos: Option<PathBuf>,
    /// Table of clips with captions (train_data.csv_path)
    #[arg(long, value_name = "FILE", conflicts_with = "videos")]
    pub csv: Option<PathBuf>,
    /// Folder in which the table's files lie (train_data.video_folder)
    #[arg(long, value_name = "DIR", conflicts_with = "videos")]
    pub video_folder: Option<PathBuf>,
    /// Caption of clips without a .txt (train_data.caption)
    #[arg(long, value_name = "TEXT")]
    pub caption: Option<String>,
}

impl Source {
    /// The shorthands as settings, before those that are given as such.
    pub fn overrides(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let texts = [
            ("train_data.csv_path", path(&self.csv)),
            ("train_data.videos", path(&self.videos)),
            ("train_data.video_folder", path(&self.video_folder)),
            ("train_data.caption", self.caption.clone()),
        ];
        let texts = texts.iter().filter_map(|(key, text)| Some(setting(key, text.as_ref()?)));
        // A folder of clips replaces the table of the file, and the other way round.
        let other = match (&self.videos, &self.csv) {
            (Some(_), _) => &["train_data.csv_path=null", "train_data.video_folder=null"][..],
            (None, Some(_)) => &["train_data.videos=null", "train_data.video_folder=null"],
            (None, None) => &[],
        };
        other.iter().map(ToString::to_string).chain(texts).chain(self.set.iter().cloned()).collect()
    }
}

/// A setting of `key` to a text, whatever is in it.
pub(super) fn setting(key: &str, text: &str) -> String {
    format!("{key}={}", serde_json::to_string(text).expect("a string is JSON, and so YAML"))
}
