//! `animatediff eval camera`: what the camera does in clips, such as those of a MotionLoRA or of its reference clips.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    clip::Clip,
    data::{augment::Motion, decode},
    eval::camera::{self, Similarity},
};

const EXAMPLES: &str = "\
Examples:
  animatediff data shapes vistas/ --domain vistas --size 96 --clips 4
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/
  animatediff eval camera zoom_in/*.mp4 --motion zoom-in";

/// Arguments of `animatediff eval camera`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Videos, animations, or folders of numbered frames
    #[arg(required = true, value_name = "CLIP")]
    clips: Vec<PathBuf>,
    /// Also tell in how many of them the camera does this, and nothing else as strongly
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
    let found = args.clips.par_iter().map(|path| args.fit(path)).collect::<Result<Vec<_>>>()?;
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
    fn fit(&self, path: &PathBuf) -> Result<Found> {
        let (frames, _) = decode::read_all(path)?;
        ensure!(frames.len() > 1, "{}: a camera cannot move in one frame; give videos or animations", path.display());
        let clip = Clip { frames, fps: 1.0 };
        clip.size().with_context(|| format!("{}: frames of several sizes", path.display()))?;
        let fit: Similarity = camera::fit(&clip);
        Ok(Found {
            clip: path.clone(),
            zoom: fit.scale,
            right: fit.amount(Motion::PanRight) / fit.side,
            down: fit.amount(Motion::TiltDown) / fit.side,
            degrees_clockwise: fit.amount(Motion::RollClockwise).to_degrees(),
            shows: self.motion.map(|motion| fit.shows(motion)),
        })
    }
}
