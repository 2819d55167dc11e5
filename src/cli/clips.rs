//! Which clips: flags that are shorthands for keys of `train_data`.

use std::path::PathBuf;

use clap::Args;

use crate::data;

/// Where clips and captions come from.
#[derive(Clone, Debug, Args)]
pub(super) struct Clips {
    /// Folder of clips with .txt captions (train_data.videos)
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// Table of clips with captions (train_data.csv_path)
    #[arg(long, value_name = "FILE", conflicts_with = "videos")]
    csv: Option<PathBuf>,
    /// Folder in which the table's files lie (train_data.video_folder)
    #[arg(long, value_name = "DIR", conflicts_with = "videos")]
    video_folder: Option<PathBuf>,
    /// Caption of clips without a .txt (train_data.caption)
    #[arg(long, value_name = "TEXT", conflicts_with = "csv")]
    caption: Option<String>,
}

impl Clips {
    /// The flags as settings. A folder or a table replaces whatever a file names, with all that goes with it.
    pub fn settings(&self) -> Vec<String> {
        let replaced = match (&self.videos, &self.csv) {
            (Some(_), _) => &["csv_path", "video_folder", "shards"][..],
            (None, Some(_)) => &["videos", "caption", "video_folder", "shards"],
            (None, None) => &[],
        };
        let mut settings: Vec<String> = replaced.iter().map(|key| format!("train_data.{key}=null")).collect();
        if !replaced.is_empty() {
            settings.push(format!("train_data.shuffle_buffer={}", data::Config::default().shuffle_buffer));
        }
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given = [
            ("csv_path", path(&self.csv)),
            ("videos", path(&self.videos)),
            ("video_folder", path(&self.video_folder)),
            ("caption", self.caption.clone()),
        ];
        let given = given.iter().filter_map(|(key, text)| Some(setting(&format!("train_data.{key}"), text.as_ref()?)));
        settings.extend(given);
        settings
    }
}

/// A setting of `key` to a text, whatever is in it.
pub(super) fn setting(key: &str, text: &str) -> String {
    format!("{key}={}", serde_json::to_string(text).expect("a string is JSON, and so YAML"))
}
