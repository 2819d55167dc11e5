//! `animatediff data`: training sets, one file per subcommand.

mod augment;
mod cache;
mod check;
mod index;
mod shapes;
mod source;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args as ClapArgs, Subcommand};

use crate::clip;
use crate::data::Size;
use crate::data::write::Format;

/// Arguments of `animatediff data`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do with training data.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Render captioned clips of coloured shapes that move, or pictures of them: training sets for a first try
    #[command(after_help = shapes::EXAMPLES)]
    Shapes(shapes::Shapes),
    /// Make camera moves from pictures or videos: a training set for a MotionLoRA
    #[command(after_help = augment::EXAMPLES)]
    Augment(augment::Augment),
    /// Turn a CSV of any number of clips into a file that opens at once, to be trained on instead
    #[command(after_help = index::EXAMPLES)]
    Index(index::Index),
    /// Read a training set as training would, on all cores, and say what is wrong with it
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    /// Put all clips and captions through the frozen networks once, to train without them
    #[command(after_help = cache::EXAMPLES)]
    Cache(cache::Cache),
}

const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data shapes vistas/ --domain vistas --size 96
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/
  animatediff data index shapes/clips.csv -o shapes/clips.index
  animatediff data check --csv shapes/clips.csv \\
      --video-folder shapes/videos \\
      --set train_data.sample_stride=1 -o checked/";

/// What all clips that are made have in common.
#[derive(Clone, Debug, ClapArgs)]
struct Form {
    /// Pixels: one number for a square, or WIDTHxHEIGHT
    #[arg(long, default_value = "64", value_parser = parse_size)]
    size: Size,
    /// Frames per clip (24 unless given)
    #[arg(long)]
    frames: Option<usize>,
    /// Frames per second (8 unless given)
    #[arg(long)]
    fps: Option<f64>,
    /// The same seed makes the same clips
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How clips are kept; mp4 unless this build has no FFmpeg
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Shapes(shapes) => shapes.run().map(|()| ExitCode::SUCCESS),
        Command::Augment(augment) => augment.run().map(|()| ExitCode::SUCCESS),
        Command::Index(index) => index.run().map(|()| ExitCode::SUCCESS),
        Command::Check(check) => check.run(),
        Command::Cache(cache) => cache.run(),
    }
}

fn parse_size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse::<usize>().ok().filter(|side| (1..=8192).contains(side));
    let size = match text.split_once('x') {
        None => side(text).map(Size::square),
        Some((width, height)) => side(width).zip(side(height)).map(|(width, height)| Size { height, width }),
    };
    size.ok_or_else(|| "give one number of pixels such as 64, or WIDTHxHEIGHT such as 96x64".into())
}

impl Form {
    fn frames(&self) -> usize {
        self.frames.unwrap_or(24)
    }

    fn fps(&self) -> f64 {
        self.fps.unwrap_or(8.0)
    }

    /// Checks what can be checked before any work, and settles the format.
    fn check(&self, folder: &Path, clips: usize) -> Result<Format> {
        ensure!(clips > 0, "--clips 0 makes nothing; give at least 1");
        ensure!(self.frames() > 0, "--frames 0 makes no clip; give at least 1");
        ensure!((0.01..=1000.0).contains(&self.fps()), "--fps {} is not a rate; give 0.01 to 1000", self.fps());
        let format = self.format.unwrap_or_default();
        if format == Format::Mp4 {
            ensure!(
                self.size.width.is_multiple_of(2) && self.size.height.is_multiple_of(2),
                "--size {}: MP4 needs even sides; choose an even size, or add --format frames",
                self.size
            );
        }
        clip::check_target(&folder.join(format.name(0)))?;
        Ok(format)
    }
}

/// Makes room for `folder`, whose contents were made by the same command: `is_ours` says so of each entry.
pub(super) fn make_room(folder: &Path, overwrite: bool, is_ours: impl Fn(&Path) -> bool) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => bail!("{}: cannot be used as the folder to make ({error}); choose another", folder.display()),
    };
    if entries.is_empty() {
        return Ok(());
    }
    ensure!(
        overwrite,
        "{} is there and not empty; add --overwrite to replace it, or choose another folder",
        folder.display()
    );
    if let Some(foreign) = entries.iter().find(|entry| !is_ours(&entry.path())) {
        bail!("{} is not of this command's making; it is left alone: choose another folder", foreign.path().display());
    }
    for entry in entries {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
