//! `animatediff eval camera`: what the camera does in clips, such as those of a MotionLoRA or of its reference clips.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    clip::Clip,
    data::{augment::Motion, decode, folder::is_caption},
    eval::camera,
};

use super::super::{as_usage, usage};

const EXAMPLES: &str = "\
Examples:
  animatediff data shapes vistas/ --domain vistas --size 96 --clips 4
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/
  animatediff eval camera zoom_in/*.mp4 --motion zoom-in";

/// What the camera does in clips. On a plain or striped background, a shape's own motion reads as the camera's
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Videos, GIFs, or folders of numbered frames; captions (.txt) among them are passed over
    #[arg(required = true, value_name = "CLIP")]
    clips: Vec<PathBuf>,
    /// Also tell in how many of them the camera does this, and nothing else more than half as strongly
    #[arg(long)]
    motion: Option<Motion>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// From the first frame to the last.
#[derive(Debug, Serialize)]
struct Found {
    clip: PathBuf,
    /// How many times as large things become.
    zoom: f64,
    /// How far the camera goes to the right, as a share of the shorter side.
    right: f64,
    /// How far it goes down, likewise.
    down: f64,
    /// How far it turns clockwise.
    degrees_clockwise: f64,
    /// Whether that is the motion that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    shows: Option<bool>,
}

/// Fits and prints.
pub fn run(args: Args) -> Result<()> {
    let clips: Vec<&PathBuf> = args.clips.iter().filter(|path| !is_caption(path)).collect();
    if clips.is_empty() {
        return Err(usage("only captions (.txt) were given; name the clips beside them"));
    }
    let fit = |path: &&PathBuf| args.fit(path);
    let found = clips.par_iter().map(fit).collect::<Result<Vec<_>>>().map_err(as_usage)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    for one in &found {
        let Found { zoom, right, down, degrees_clockwise, .. } = one;
        let verdict = one.shows.map_or("", |shows| if shows { "  yes" } else { "  no" });
        println!(
            "zoom x{zoom:4.2}  right {:+4.0} %  down {:+4.0} %  clockwise {degrees_clockwise:+4.0}°{verdict}  {}",
            100.0 * right,
            100.0 * down,
            one.clip.display()
        );
    }
    if args.motion.is_some() {
        let shown = found.iter().filter(|one| one.shows == Some(true)).count();
        println!("{shown} of {} clips show it", found.len());
    }
    Ok(())
}

impl Args {
    fn fit(&self, path: &Path) -> Result<Found> {
        let frames = decode::read_all(path)?;
        let (count, name) = (frames.len(), path.display());
        ensure!(
            count > 1,
            "{name}: one frame is read, and a camera moves over several; give a video, a GIF or a folder"
        );
        let clip = Clip { frames, fps: 1.0 };
        let (width, height) = clip.size()?;
        let least = camera::SMALLEST;
        ensure!(
            width.min(height) >= least,
            "{name}: {width}x{height} is too small to fit a camera; give at least {least}x{least}"
        );
        let fit = camera::fit(&clip);
        Ok(Found {
            clip: path.to_owned(),
            zoom: fit.scale,
            right: fit.amount(Motion::PanRight) / fit.side,
            down: fit.amount(Motion::TiltDown) / fit.side,
            degrees_clockwise: fit.amount(Motion::RollClockwise).to_degrees(),
            shows: self.motion.map(|motion| fit.shows(motion)),
        })
    }
}
