//! `animatediff reproduce`: trains and measures every claim of the recipe.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::ValueEnum;

use super::progress::{Progress, clock, say};
use crate::{
    device::DeviceChoice,
    reproduce::{self, Budget, Claim, Interrupted, Settings, Watcher, lab::Record},
};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset shapes base/
  animatediff reproduce --base base/ --only prompted-motion --quick -o quick/
In the repository, where the trained base lies in data/shapes-base, all claims:
animatediff reproduce";

/// Train and measure every claim of the recipe in a small world; a second call goes on where the first one stopped
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Base model of the shapes' world: a folder in the diffusers layout
    #[arg(long, value_name = "DIR", default_value = "data/shapes-base")]
    base: PathBuf,
    /// Folder of adapter.yaml, motion.yaml, motionlora.yaml and style.yaml
    #[arg(long, value_name = "DIR", default_value = "configs/shapes")]
    configs: PathBuf,
    /// How many seeds, from 0 on; with several, means and spreads are told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// These claims only
    #[arg(long, value_name = "CLAIM", num_args = 1..)]
    only: Vec<Claim>,
    /// A tiny part of everything, to see that it runs: the numbers mean nothing
    #[arg(long)]
    quick: bool,
    /// auto, cpu, cuda or cuda:n
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Where steps are kept and the report is written
    #[arg(short, long, value_name = "DIR", default_value = "outputs/reproduce")]
    output: PathBuf,
}

/// Runs what is left to do; 130 or 143 after a signal, with everything that was done kept.
pub fn run(args: Args) -> Result<ExitCode> {
    // Each once, however often it is named: twice would count as two seeds.
    let asked = |claim: &&Claim| args.only.is_empty() || args.only.contains(claim);
    let claims = Claim::value_variants().iter().filter(asked).copied().collect();
    let settings = Settings {
        base: args.base,
        configs: args.configs,
        out: args.output,
        seeds: args.seeds,
        claims,
        budget: if args.quick { Budget::quick() } else { Budget::full() },
        device: args.device,
    };
    match reproduce::run(&settings, &mut Terminal::default()) {
        Ok(table) => {
            print!("{table}");
            say(&format!("report: {}", settings.out.join("report.html").display()));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => match error.downcast_ref::<Interrupted>() {
            Some(Interrupted(signal)) => {
                say("stopped by a signal; the same command goes on from here");
                Ok(ExitCode::from(signal.exit_code() as u8))
            }
            None => Err(error),
        },
    }
}

/// The steps on a terminal: a bar for the one under way, a line for each that is done.
#[derive(Default)]
struct Terminal {
    bar: Option<Progress>,
}

impl Watcher for Terminal {
    fn begun(&mut self, name: &str, length: u64) {
        self.clear();
        self.bar = Some(Progress::new(length, name));
    }

    fn at(&mut self, position: u64, note: String) {
        if let Some(bar) = &mut self.bar {
            bar.at(position, note);
        }
    }

    fn done(&mut self, record: &Record) {
        self.clear();
        let Record { name, seconds, notes, reused, .. } = record;
        let time = clock(Duration::from_secs_f64(seconds.round()));
        let pace = notes["seconds_per_step"].as_f64();
        let pace = pace.map_or(String::new(), |seconds| format!(", {seconds:.3} s per update"));
        let known = if *reused { "taken up, " } else { "" };
        say(&format!("{name}: {known}{time}{pace}"));
    }
}

impl Terminal {
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
