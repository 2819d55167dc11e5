//! `animatediff eval`: measures what models make, or train on.

mod camera;
mod shapes;

use anyhow::Result;
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset shapes base/
  animatediff eval shapes --base base/ --prompts 4
  animatediff data shapes vistas/ --domain vistas --size 96 --clips 2
  animatediff data augment vistas/vistas/* --motion pan-left -o pan/
  animatediff eval camera pan/*.mp4";

/// Measure what models make, or train on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A base of the world of shapes, or animations from it
    Shapes(shapes::Args),
    /// What the camera does in clips: of a MotionLoRA, or to train one
    Camera(camera::Args),
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Shapes(args) => shapes::run(args),
        Command::Camera(args) => camera::run(args),
    }
}
