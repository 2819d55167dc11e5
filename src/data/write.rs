//! Training sets as folders: how a clip is kept, and a caption beside it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::clip::Clip;

/// How clips are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// H.264 video
    Mp4,
    /// Folders of numbered PNG
    Frames,
}

impl Default for Format {
    /// MP4, unless this build has no FFmpeg.
    fn default() -> Format {
        if cfg!(feature = "ffmpeg") { Format::Mp4 } else { Format::Frames }
    }
}

impl Format {
    /// File or folder name of clip number `index`.
    pub fn name(self, index: usize) -> String {
        match self {
            Format::Mp4 => format!("{index:05}.mp4"),
            Format::Frames => format!("{index:05}"),
        }
    }
}

/// Writes clip number `index` into `folder`, with its caption in a `.txt` of the same name.
pub fn captioned(folder: &Path, index: usize, clip: &Clip, caption: &str, format: Format) -> Result<()> {
    clip.save(&folder.join(format.name(index)))?;
    self::caption(folder, index, caption)
}

/// Writes the caption of number `index` of `folder` into a `.txt` of its name.
pub fn caption(folder: &Path, index: usize, caption: &str) -> Result<()> {
    let text = folder.join(format!("{index:05}.txt"));
    fs::write(&text, format!("{caption}\n")).with_context(|| format!("cannot write {}", text.display()))
}
