//! `animatediff data augment`: camera moves over pictures or videos.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;

use super::super::as_usage;
use super::{Form, make_room};
use crate::clip::Clip;
use crate::data::augment::{self, Extent, Motion};
use crate::data::write;
use crate::data::{decode, folder::is_caption};
use crate::frame::Frame;

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff data shapes vistas/ --domain vistas --size 96
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/

Train on them with
  train_data: {videos: zoom_in/}";

/// Arguments of `animatediff data augment`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Augment {
    /// Pictures, videos, or folders of numbered frames; taken in turn
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// What the camera does
    #[arg(long)]
    motion: Motion,
    /// Folder to make: clips, each with its caption in a `.txt` beside it
    #[arg(short, long)]
    out: PathBuf,
    /// Caption of inputs that have no `.txt` of the same name
    #[arg(long)]
    caption: Option<String>,
    #[command(flatten)]
    form: Form,
    /// Number of clips; one for each input unless given
    #[arg(long)]
    clips: Option<usize>,
}

impl Augment {
    /// Makes the clips.
    pub(super) fn run(&self) -> Result<()> {
        let inputs = self.inputs().map_err(as_usage)?;
        let clips = self.clips.unwrap_or(inputs.len());
        let format = self.form.check(&self.out, clips).map_err(as_usage)?;
        make_room(&self.out, self.form.overwrite, is_clip_or_caption).map_err(as_usage)?;
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
        for index in 0..clips {
            let (input, caption) = &inputs[index % inputs.len()];
            write::captioned(&self.out, index, &self.film(input, index).map_err(as_usage)?, caption, format)?;
        }
        println!("{}: {clips} clips", self.out.display());
        Ok(())
    }

    /// The inputs with their captions, all of which are settled before any work is done.
    fn inputs(&self) -> Result<Vec<(PathBuf, String)>> {
        let inputs: Vec<&PathBuf> = self.input.iter().filter(|path| !is_caption(path)).collect();
        ensure!(!inputs.is_empty(), "only caption files were given; name the pictures or videos beside them");
        inputs.into_iter().map(|path| Ok((path.clone(), self.caption_of(path)?))).collect()
    }

    fn caption_of(&self, input: &Path) -> Result<String> {
        let text = if input.is_dir() { append(input, ".txt") } else { input.with_extension("txt") };
        match (fs::read_to_string(&text), &self.caption) {
            (Ok(caption), _) => Ok(caption.trim().to_string()),
            (Err(_), Some(caption)) => Ok(caption.clone()),
            (Err(error), None) => {
                bail!(
                    "{}: no caption in {} ({error}); write it there, or add --caption",
                    input.display(),
                    text.display()
                )
            }
        }
    }

    fn film(&self, input: &Path, index: usize) -> Result<Clip> {
        let frames = decode::read_all(input)?;
        let source = self.take(input, frames)?;
        let extent = Extent::draw(self.form.seed, index as u64);
        Ok(augment::film(&source, self.motion, extent, self.form.size, self.form.frames(), self.form.fps()))
    }

    /// A picture serves for the whole clip; a video gives as many frames as the clip has, from its start.
    fn take(&self, input: &Path, mut frames: Vec<Frame>) -> Result<Vec<Frame>> {
        let (have, want) = (frames.len(), self.form.frames());
        ensure!(
            have == 1 || have >= want,
            "{}: {have} frames, and a clip takes {want}; lower --frames, or give a longer video or a picture",
            input.display()
        );
        frames.truncate(want);
        Ok(frames)
    }
}

fn append(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.components().as_path().as_os_str().to_os_string();
    name.push(ending);
    PathBuf::from(name)
}

fn is_clip_or_caption(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned());
    stem.len() >= 5
        && stem.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(extension.as_deref(), None | Some("mp4" | "txt"))
}
