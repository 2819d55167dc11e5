//! Sets of the world's clips and pictures, as folders with a table of captions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::super::{
    Size,
    write::{self, Format},
};
use super::{Scene, Split, Style, veil};

/// One still of so many has a caption that does not say where the shape is. Without them, a prompt that says nothing of it,
/// as a video's, is nothing that a base has read of.
const BRIEF: usize = 3;

/// What the world is seen as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Domain {
    /// Clips with captions that say how things move
    Video,
    /// Pictures with captions that say where things are
    Stills,
    /// Pictures seen from afar, for `data augment` to move a camera over: each with a video's caption in a .txt beside it
    Vistas,
}

/// A set to be written: what is shown, and how it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Clips, or pictures.
    pub domain: Domain,
    /// How they are painted.
    pub style: Style,
    /// Which combinations; of clips only.
    pub split: Split,
    /// Strength of the watermark over clips; at 0 they are neither softened nor compressed either.
    pub veil: f64,
    /// Pixels.
    pub size: Size,
    /// Frames per clip.
    pub frames: usize,
    /// Frames per second.
    pub fps: f64,
    /// The same seed makes the same set.
    pub seed: u64,
    /// How clips are kept; pictures are PNG.
    pub format: Format,
}

impl Domain {
    /// The folder of the clips or pictures, beside their table.
    pub fn folder(self) -> &'static str {
        match self {
            Domain::Video => "videos",
            Domain::Stills => "stills",
            Domain::Vistas => "vistas",
        }
    }

    /// WebVid's columns for videos, paths for pictures.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Domain::Video => &["videoid", "contentUrl", "duration", "page_dir", "name"],
            Domain::Stills | Domain::Vistas => &["video", "caption"],
        }
    }
}

impl Set {
    /// Renders `count` clips or pictures into `out`, on all cores, and then their table; gives its path. `each` hears of
    /// each that is done, and may stop the work with an error.
    pub fn write(&self, out: &Path, count: usize, each: impl Fn() -> Result<()> + Sync) -> Result<PathBuf> {
        let folder = out.join(self.domain.folder());
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let make = |index| {
            let row = self.make(&folder, index)?;
            each()?;
            Ok(row)
        };
        let rows = (0..count).into_par_iter().map(make).collect::<Result<Vec<_>>>()?;
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(self.domain.columns())?;
        rows.iter().try_for_each(|row| table.write_record(row))?;
        let path = out.join("clips.csv");
        fs::write(&path, table.into_inner()?).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Renders and writes number `index`; its row of the table.
    fn make(&self, folder: &Path, index: usize) -> Result<Vec<String>> {
        let &Set { style, size, frames, fps, seed, .. } = self;
        match self.domain {
            Domain::Video => {
                let scene = Scene::draw(seed, index as u64, self.split);
                let clean = scene.render(style, size, frames, fps);
                let clip = if self.veil > 0.0 { veil(&clean, self.veil) } else { clean };
                let file = self.format.name(index);
                clip.save(&folder.join(&file))?;
                let seconds = format!("{:.3}", frames as f64 / fps);
                Ok(vec![format!("{index:05}"), file, seconds, self.domain.folder().into(), scene.caption()])
            }
            Domain::Stills => {
                let scene = Scene::still(seed, index as u64);
                let brief = index % BRIEF == BRIEF - 1;
                let caption = if brief { scene.brief_caption() } else { scene.still_caption() };
                self.picture(folder, index, &scene, caption)
            }
            Domain::Vistas => {
                let scene = Scene::vista(seed, index as u64);
                write::caption(folder, index, &scene.caption())?;
                self.picture(folder, index, &scene, scene.caption())
            }
        }
    }

    /// Writes a picture of `scene`; its row of the table.
    fn picture(&self, folder: &Path, index: usize, scene: &Scene, caption: String) -> Result<Vec<String>> {
        let file = format!("{index:05}.png");
        scene.frame(self.style, self.size, 0.0).save_png(&folder.join(&file))?;
        Ok(vec![format!("{}/{file}", self.domain.folder()), caption])
    }
}
