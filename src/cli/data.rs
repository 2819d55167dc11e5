//! `animatediff data`: makes small training sets.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args as ClapArgs, Subcommand};

use super::as_usage;
use crate::clip::{self, Clip};
use crate::data::augment::{self, Extent, Motion};
use crate::data::shapes::{self, Domain, Split, Style};
use crate::data::write::{self, Format};
use crate::data::{Size, decode, index::is_caption};
use crate::frame::Frame;

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
    #[command(after_help = SHAPES_EXAMPLES)]
    Shapes(Shapes),
    /// Make camera moves from pictures or videos: a training set for a MotionLoRA
    #[command(after_help = AUGMENT_EXAMPLES)]
    Augment(Augment),
}

const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data shapes vistas/ --domain vistas --size 96
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/";

const SHAPES_EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data shapes held_out/ --split held-out --clips 4 --veil 0
  animatediff data shapes stills/ --domain stills --style night --clips 40

Train on clips with
  train_data: {csv_path: shapes/clips.csv, video_folder: shapes/videos}
and on stills with
  train_data: {csv_path: stills/clips.csv}";

const AUGMENT_EXAMPLES: &str = "\
Examples:
  animatediff data shapes vistas/ --domain vistas --size 96
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/

Train on them with
  train_data: {videos: zoom_in/}";

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
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Shapes(shapes) => shapes.run(),
        Command::Augment(augment) => augment.run(),
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

fn is_clip_or_caption(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| e.to_string_lossy().into_owned());
    stem.len() >= 5
        && stem.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(extension.as_deref(), None | Some("mp4" | "txt"))
}

impl Shapes {
    fn run(&self) -> Result<()> {
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

impl Augment {
    fn run(&self) -> Result<()> {
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
        let (frames, _) = decode::read_all(input)?;
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
