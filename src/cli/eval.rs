//! `animatediff eval`: measures what models make.

mod shapes;

use anyhow::Result;
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset shapes base/
  animatediff eval shapes --base base/ --prompts 4";

/// Measure what models make
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
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Shapes(args) => shapes::run(args),
    }
}
