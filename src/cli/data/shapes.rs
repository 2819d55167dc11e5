//! `animatediff data shapes`: renders a small training set.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Args as ClapArgs;

use super::super::as_usage;
use super::{Form, make_room};
use crate::data::shapes::{self, Domain, Split, Style};
use crate::data::write::Format;

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data shapes held_out/ --split held-out --clips 4 --veil 0
  animatediff data shapes stills/ --domain stills --style night --clips 40

Train on clips with
  train_data: {csv_path: shapes/clips.csv, video_folder: shapes/videos}
and on stills with
  train_data: {csv_path: stills/clips.csv}";

/// Arguments of `animatediff data shapes`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Shapes {
    /// Folder to make: `videos/`, `stills/` or `vistas/`, and `clips.csv` with the captions
    out: PathBuf,
    #[command(flatten)]
    form: Form,
    /// Number of clips, or of pictures
    #[arg(long, default_value_t = 12)]
    clips: usize,
    /// Clips as a stock corpus has them, the clean pictures that an image model knows, or pictures to move a camera over
    #[arg(long, value_enum, default_value_t = Domain::Video)]
    domain: Domain,
    /// How they are painted
    #[arg(long, value_enum, default_value_t = Style::Flat)]
    style: Style,
    /// Which combinations of shape, colour and motion (video only; seen unless given)
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// How strong the watermark over videos is, 0 to 1 (0.5 unless given); at 0 they are neither softened nor compressed either
    #[arg(long)]
    veil: Option<f64>,
}

impl Shapes {
    /// Makes the set.
    pub(super) fn run(&self) -> Result<()> {
        let (folder, format) = self.check().map_err(as_usage)?;
        let (is_folder, is_table) = (folder.clone(), self.out.join("clips.csv"));
        make_room(&self.out, self.form.overwrite, |path| path == is_folder || path == is_table).map_err(as_usage)?;
        let path = self.set(format).write(&self.out, self.clips, || Ok(()))?;
        let what = if self.domain == Domain::Video { "clips" } else { self.domain.folder() };
        println!("{}: {} {what} in {}", path.display(), self.clips, folder.display());
        Ok(())
    }

    fn set(&self, format: Format) -> shapes::Set {
        let &Shapes { domain, style, .. } = self;
        let split = self.split.unwrap_or_default();
        let &Form { size, seed, .. } = &self.form;
        let (frames, fps, veil) = (self.form.frames(), self.form.fps(), self.veil());
        shapes::Set { domain, style, split, veil, size, frames, fps, seed, format }
    }

    fn veil(&self) -> f64 {
        self.veil.unwrap_or(shapes::STRENGTH)
    }

    /// Where they go and how they are kept, checked before any work.
    fn check(&self) -> Result<(PathBuf, Format)> {
        ensure!((0.0..=1.0).contains(&self.veil()), "--veil {}: give a strength from 0 to 1", self.veil());
        match self.domain {
            Domain::Video => {
                let folder = self.out.join(self.domain.folder());
                let format = self.form.check(&folder, self.clips)?;
                Ok((folder, format))
            }
            Domain::Stills | Domain::Vistas => {
                let what = self.domain.folder();
                ensure!(self.clips > 0, "--clips 0 makes nothing; give at least 1");
                let of_clips = [
                    ("--split", self.split.is_some()),
                    ("--veil", self.veil.is_some()),
                    ("--frames", self.form.frames.is_some()),
                    ("--fps", self.form.fps.is_some()),
                ];
                if let Some((flag, _)) = of_clips.into_iter().find(|(_, given)| *given) {
                    bail!("{flag} is of clips, and these are {what}; remove it");
                }
                ensure!(self.form.format.is_none(), "--format is of clips, and {what} are PNG; remove it");
                Ok((self.out.join(what), Format::Frames))
            }
        }
    }
}
