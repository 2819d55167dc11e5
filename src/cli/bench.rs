//! `animatediff bench`: how fast this build is on this machine.

mod data;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::usage;
use crate::{
    bench::{self, Case, Report, Scale, Version, measure, train::Savings},
    device::{DeviceChoice, Precision},
    nn::Checkpointing,
};

const EXAMPLES: &str = "\
Examples:
  animatediff bench sample --scale tiny --frames 8 --steps 4
The other kinds of work have examples of their own: animatediff bench sample --help.
scripts/bench_side_by_side.sh runs the same beside diffusers";
const SAMPLE_EXAMPLES: &str = "\
Examples:
  animatediff bench sample --scale tiny --frames 4 --steps 3
  animatediff bench sample --scale tiny --frames 4 --steps 3 --no-cfg --json
With --scale sd15 it takes 5 GB of memory and, on a CPU, minutes";
const TRAIN_EXAMPLES: &str = "\
Examples:
  animatediff bench train-motion --scale tiny --frames 4 --steps 2
  animatediff bench train-motion --scale tiny --frames 4 --steps 2 \\
      --grad-ckpt full --json
With --scale sd15 it takes 15 GB of memory and, on a CPU, minutes";
const DECODE_EXAMPLES: &str = "\
Examples:
  animatediff bench vae-decode --scale tiny --frames 4 --repeat 3";
const STARTUP_EXAMPLES: &str = "\
Examples:
  animatediff bench startup --scale tiny --frames 4 --repeat 3
  animatediff bench startup --scale tiny --frames 4 --weights-dir weights/
With --scale sd15 it writes 2.9 GB of weights (bf16), or twice as much";

/// Measure the speed of this build on this machine, on random weights
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Text, denoising steps and VAE: a clip from noise
    #[command(after_help = SAMPLE_EXAMPLES)]
    Sample(SampleArgs),
    /// Updates of the motion module on random clips
    #[command(after_help = TRAIN_EXAMPLES)]
    TrainMotion(TrainArgs),
    /// Latents to pictures
    #[command(after_help = DECODE_EXAMPLES)]
    VaeDecode(DecodeArgs),
    /// A fresh process, from its start to the first denoising step: weights are read from files
    #[command(after_help = STARTUP_EXAMPLES)]
    Startup(StartupArgs),
    /// Clips from files to pixels, or an index of many clips
    #[command(after_help = data::EXAMPLES)]
    Data(data::DataArgs),
}

/// What all take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Size of the networks
    #[arg(long, value_enum, default_value_t = ScaleArg::Tiny)]
    scale: ScaleArg,
    /// Side of the frames in pixels (64 for tiny; for sd15 512, and 256 in training)
    #[arg(long)]
    size: Option<i64>,
    /// Frames per clip
    #[arg(long, default_value_t = 16)]
    frames: i64,
    /// auto, cpu, cuda or cuda:n
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// auto (as in `sample` and `train`), fp32, bf16 or fp16
    #[arg(long, default_value = "auto")]
    dtype: Precision,
    /// Threads to compute with (all cores if not given)
    #[arg(long)]
    threads: Option<u16>,
    /// Of weights and noise
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// A word that goes into the report
    #[arg(long, default_value = "")]
    tag: String,
    /// One JSON object on one line instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SampleArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelArgs,
    /// Clips together
    #[arg(long, default_value_t = 1)]
    batch: i64,
    /// Denoising steps (4; 25 for sd15)
    #[arg(long)]
    steps: Option<i64>,
    #[command(flatten)]
    rounds: Rounds,
}

#[derive(Debug, clap::Args)]
struct TrainArgs {
    #[command(flatten)]
    common: Common,
    /// Architecture of the motion module
    #[arg(long, value_enum, default_value_t = MotionArg::V3)]
    motion: MotionArg,
    /// Clips per update
    #[arg(long, default_value_t = 1)]
    batch: i64,
    /// Updates that are measured
    #[arg(long, default_value_t = 5)]
    steps: i64,
    /// Updates before them, besides the first
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// What the backward pass computes again instead of keeping it
    #[arg(long, value_enum, default_value_t = CheckpointingArg::None)]
    grad_ckpt: CheckpointingArg,
    /// Moments of AdamW in 8 bits
    #[arg(long)]
    adam8bit: bool,
}

#[derive(Debug, clap::Args)]
struct DecodeArgs {
    #[command(flatten)]
    common: Common,
    /// Clips together
    #[arg(long, default_value_t = 1)]
    batch: i64,
    /// Frames that go through the VAE together (as in `sample` if not given)
    #[arg(long)]
    decode_chunk: Option<i64>,
    #[command(flatten)]
    rounds: Rounds,
}

#[derive(Debug, clap::Args)]
struct StartupArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelArgs,
    /// Denoising steps of the clip
    #[arg(long, default_value_t = 1)]
    steps: i64,
    /// Processes that are measured
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Where the random weights are kept, and written when they are not there; a temporary folder if not given
    #[arg(long, value_name = "DIR")]
    weights_dir: Option<PathBuf>,
    /// The measured process itself: when it was started, in seconds since the epoch
    #[arg(long, hide = true, requires = "weights_dir")]
    since: Option<f64>,
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// Architecture of the motion module
    #[arg(long, value_enum, default_value_t = MotionArg::V3)]
    motion: MotionArg,
    /// Without guidance: one row of the batch per clip instead of two
    #[arg(long)]
    no_cfg: bool,
}

#[derive(Debug, clap::Args)]
struct Rounds {
    /// Rounds that are not measured
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Rounds that are
    #[arg(long, default_value_t = 1)]
    repeat: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScaleArg {
    /// A few megabytes
    Tiny,
    /// Stable Diffusion 1.5
    Sd15,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MotionArg {
    /// With a module in the middle block
    V2,
    /// Without
    V3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckpointingArg {
    /// Nothing
    None,
    /// Residual blocks
    Blocks,
    /// Residual blocks, spatial transformers and motion modules
    Full,
}

/// Measures, and prints what came of it.
pub fn run(args: &Args) -> Result<()> {
    match &args.work {
        Work::Sample(args) => args.run(),
        Work::TrainMotion(args) => args.run(),
        Work::VaeDecode(args) => args.run(),
        Work::Startup(args) => args.run(),
        Work::Data(args) => {
            print(&args.run()?, args.json);
            Ok(())
        }
    }
}

impl Common {
    /// The case that these options describe, with one of everything that they do not.
    fn case(&self, sd15_size: i64) -> Result<Case> {
        let device = self.device.resolve().map_err(usage)?;
        if let Some(threads) = self.threads {
            if threads == 0 {
                return Err(usage("--threads 0: at least 1 is expected"));
            }
            tch::set_num_threads(threads.into());
        }
        let (scale, size) = match self.scale {
            ScaleArg::Tiny => (Scale::Tiny, 64),
            ScaleArg::Sd15 => (Scale::Sd15, sd15_size),
        };
        Ok(Case {
            scale,
            motion: Version::V3,
            size: self.size.unwrap_or(size),
            frames: self.frames,
            batch: 1,
            steps: 1,
            guided: false,
            warmup: 0,
            repeat: 1,
            device,
            kind: self.dtype.kind(device),
            seed: self.seed,
            tag: self.tag.clone(),
        })
    }

    /// The same for what samples: `auto` is what `sample` takes it for.
    fn sampling_case(&self) -> Result<Case> {
        let case = self.case(512)?;
        Ok(Case { kind: self.dtype.for_sampling(case.device), ..case })
    }

    fn print(&self, report: &Report) {
        print(report.fields(), self.json);
    }
}

impl SampleArgs {
    fn run(&self) -> Result<()> {
        let case = Case {
            motion: self.model.motion.version(),
            guided: !self.model.no_cfg,
            batch: self.batch,
            steps: self.steps.unwrap_or(if self.common.scale == ScaleArg::Sd15 { 25 } else { 4 }),
            warmup: self.rounds.warmup,
            repeat: self.rounds.repeat,
            ..self.common.sampling_case()?
        };
        case.check().map_err(usage)?;
        self.common.print(&bench::sample::run(&case)?);
        Ok(())
    }
}

impl TrainArgs {
    fn run(&self) -> Result<()> {
        let case = Case {
            motion: self.motion.version(),
            batch: self.batch,
            steps: self.steps,
            warmup: self.warmup,
            ..self.common.case(256)?
        };
        case.check().map_err(usage)?;
        let checkpointing = match self.grad_ckpt {
            CheckpointingArg::None => Checkpointing::None,
            CheckpointingArg::Blocks => Checkpointing::Blocks,
            CheckpointingArg::Full => Checkpointing::Full,
        };
        self.common.print(&bench::train::run(&case, Savings { checkpointing, adam8bit: self.adam8bit })?);
        Ok(())
    }
}

impl DecodeArgs {
    fn run(&self) -> Result<()> {
        if let Some(frames) = self.decode_chunk.filter(|&frames| frames < 1) {
            return Err(usage(format!("--decode-chunk {frames}: at least 1 is expected")));
        }
        let case = Case {
            batch: self.batch,
            warmup: self.rounds.warmup,
            repeat: self.rounds.repeat,
            ..self.common.case(512)?
        };
        case.check().map_err(usage)?;
        self.common.print(&bench::decode::run(&case, self.decode_chunk)?);
        Ok(())
    }
}

impl StartupArgs {
    fn run(&self) -> Result<()> {
        let case = Case {
            motion: self.model.motion.version(),
            guided: !self.model.no_cfg,
            steps: self.steps,
            repeat: self.repeat,
            ..self.common.sampling_case()?
        };
        case.check().map_err(usage)?;
        if let (Some(since), Some(place)) = (self.since, &self.weights_dir) {
            self.common.print(&bench::startup::run(&case, place, since)?);
            return Ok(());
        }
        let temporary = match &self.weights_dir {
            Some(_) => None,
            None => Some(tempfile::tempdir().context("a temporary folder cannot be made")?),
        };
        let folder = self.weights_dir.as_deref().or(temporary.as_ref().map(|folder| folder.path()));
        let place = bench::startup::weights(folder.expect("one of the two is there"), &case)?;
        let mut runs = (0..self.repeat).map(|_| self.measure(&case, &place)).collect::<Result<Vec<_>>>()?;
        let first = |run: &Map<String, Value>| run["time_to_first_step_s"].as_f64().unwrap_or(f64::NAN);
        runs.sort_by(|a, b| first(a).total_cmp(&first(b)));
        let all: Vec<f64> = runs.iter().map(first).collect();
        let mut middle = runs.swap_remove(runs.len() / 2);
        middle.insert("runs".into(), json!(all.len()));
        middle.insert("time_to_first_step_all_s".into(), json!(all));
        print(&middle, self.common.json);
        Ok(())
    }

    /// What a fresh process measures: this program with these options, on the weights in `place`.
    fn measure(&self, case: &Case, place: &Path) -> Result<Map<String, Value>> {
        let program = std::env::current_exe().context("this program does not find itself")?;
        let case = [
            ("--scale", name(self.common.scale)),
            ("--motion", name(self.model.motion)),
            ("--device", self.common.device.to_string()),
            ("--dtype", Precision::of(case.kind).to_string()),
            ("--size", case.size.to_string()),
            ("--frames", case.frames.to_string()),
            ("--steps", case.steps.to_string()),
            ("--seed", case.seed.to_string()),
            ("--tag", case.tag.clone()),
        ];
        let mut command = Command::new(program);
        command.args(["bench", "startup", "--json"]).args(case.iter().flat_map(|(flag, value)| [*flag, value]));
        if self.model.no_cfg {
            command.arg("--no-cfg");
        }
        if let Some(threads) = self.common.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        command.arg("--weights-dir").arg(place).arg("--since").arg(format!("{:.6}", measure::now()));
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("it cannot be started")?;
        ensure!(output.status.success(), "the measured process ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("the measured process did not print a report")
    }
}

impl MotionArg {
    fn version(self) -> Version {
        match self {
            MotionArg::V2 => Version::V2,
            MotionArg::V3 => Version::V3,
        }
    }
}

/// How an option's value is written.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("every value has a name").get_name().to_owned()
}

fn print(fields: &Map<String, Value>, as_json: bool) {
    if as_json {
        println!("{}", Value::Object(fields.clone()));
        return;
    }
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null() && *value != "") {
        println!("{name:<26} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
}
