//! `animatediff train`: the three stages, the image model and its VAE.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::Subcommand;

use super::{
    clips::{Clips, setting},
    progress::{Progress, clock, say},
    ranks::{self, Ranks},
    usage,
};
use crate::{
    assemble::{Base, Motion},
    config,
    device::{DeviceChoice, Precision},
    dist::Comm,
    train::{
        Config, Stage,
        clock::Pace,
        folder::RunFolder,
        resume::{Point, Resume},
        run::{Finished, Observer, Run, Summary},
        trainer::StepReport,
    },
    yaml,
};

/// Train one of the three stages, the image model or its VAE
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    stage: StageCommand,
}

#[derive(Debug, Subcommand)]
enum StageCommand {
    /// Stage 1: a domain adapter (LoRA on the image attention), on single frames of videos
    #[command(after_help = ADAPTER_EXAMPLES)]
    Adapter(StageArgs),
    /// Stage 2: a motion module, on clips
    #[command(after_help = MOTION_EXAMPLES)]
    Motion(StageArgs),
    /// Stage 3: a MotionLoRA, on a few clips that move alike
    #[command(after_help = MOTIONLORA_EXAMPLES)]
    Motionlora(StageArgs),
    /// The whole image UNet, on single frames or pictures
    #[command(after_help = IMAGE_EXAMPLES)]
    Image(StageArgs),
    /// The VAE, on single frames or pictures: reconstruction and KL divergence
    #[command(after_help = VAE_EXAMPLES)]
    Vae(StageArgs),
}

const EXAMPLES: &str = "\
Examples:
  animatediff train motion -c configs/training/motion.yaml --print-config
The other trainings have examples of their own: animatediff train motion --help";
const ADAPTER_EXAMPLES: &str = "\
Examples:
  animatediff train adapter -c configs/training/adapter.yaml --print-config
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff train adapter --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set lora.rank=8 --max-steps 2";
const MOTION_EXAMPLES: &str = "\
Examples:
  animatediff train motion -c configs/training/motion.yaml --print-config
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff train motion --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set train_data.sample_stride=1 --max-steps 2";
const MOTIONLORA_EXAMPLES: &str = "\
Examples:
  animatediff train motionlora -c configs/training/motionlora.yaml \\
      --print-config
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff train motion --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set train_data.sample_stride=1 --set is_debug=true --max-steps 2
  animatediff data shapes vistas/ --domain vistas --size 96
  animatediff data augment vistas/vistas/* --motion zoom-in -o zoom_in/
  animatediff train motionlora --base base/ --videos zoom_in/ \\
      --motion outputs/debug/export/motion_module.safetensors \\
      --set train_data.sample_size=64 --set train_data.sample_stride=1 \\
      --set lora.rank=8 --max-steps 2";
const IMAGE_EXAMPLES: &str = "\
Examples:
  animatediff train image -c configs/training/image.yaml --print-config
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff train image --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 --max-steps 2";

const VAE_EXAMPLES: &str = "\
Examples:
  animatediff train vae -c configs/training/vae.yaml --print-config
  animatediff init --preset tiny base/
  animatediff data shapes stills/ --domain stills
  animatediff train vae --base base/ --csv stills/clips.csv \\
      --set train_data.sample_size=64 --max-steps 2";

/// What all stages take. Everything but the first is a shorthand for a key of the configuration.
#[derive(Debug, clap::Args)]
struct StageArgs {
    /// Configuration (YAML); official training.yaml and image_finetune.yaml are read as they are
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any key of the configuration, such as train_data.sample_size=128; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Base model: a folder in the diffusers layout, a whole checkpoint, or hf:owner/repo (pretrained_model_path)
    #[arg(long, value_name = "DIR|FILE")]
    base: Option<PathBuf>,
    /// Domain adapter to merge into the frozen UNet (adapter)
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
    /// Motion module: frozen under a MotionLoRA, the start of `train motion` (motion)
    #[arg(long, value_name = "FILE|DIR")]
    motion: Option<PathBuf>,
    #[command(flatten)]
    clips: Clips,
    /// Updates (max_train_steps)
    #[arg(long, value_name = "N")]
    max_steps: Option<i64>,
    /// Start of the run folder's name; the configuration file's name otherwise (name)
    #[arg(long)]
    name: Option<String>,
    /// Where run folders are made (output_dir)
    #[arg(short, long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:n (device)
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// auto, fp32, bf16 or fp16: what networks compute in (precision)
    #[arg(long)]
    precision: Option<Precision>,
    /// `auto`: go on with the newest run of this name that left a checkpoint, or start a new one; for commands that are
    /// repeated as they are. `never`: start a new one. Or the run's folder, or one of its checkpoints: its own configuration
    /// is then used unless -c gives another
    #[arg(long, value_name = "auto|never|RUN", default_value = "never", hide_default_value = true)]
    resume: Resume,
    #[command(flatten)]
    ranks: Ranks,
    /// Load everything and compute one loss; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the resolved configuration and stop
    #[arg(long)]
    print_config: bool,
}

/// Trains; 130 or 143 after a signal, with a complete checkpoint.
pub fn run(args: Args) -> Result<ExitCode> {
    let (stage, args) = match args.stage {
        StageCommand::Adapter(args) => (Stage::Adapter, args),
        StageCommand::Motion(args) => (Stage::Motion, args),
        StageCommand::Motionlora(args) => (Stage::MotionLora, args),
        StageCommand::Image(args) => (Stage::Image, args),
        StageCommand::Vae(args) => (Stage::Vae, args),
    };
    if matches!(args.resume, Resume::From(_)) && (args.name.is_some() || args.output_dir.is_some()) {
        return Err(usage(
            "--resume RUN goes on in the run's own folder; remove --name and --output-dir, or use --resume auto",
        ));
    }
    let file = args.config.clone().map_or_else(|| args.resume.config(), |file| Ok(Some(file)))?;
    let config = config::load(stage, file.as_deref(), &args.overrides())?;
    if args.print_config {
        print!("{}", yaml::to_text(&config));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(code) = args.ranks.launch()? {
        return Ok(code);
    }
    let comm = ranks::join(Duration::from_secs(60 * config.dist_timeout_minutes))?;
    let who = (comm.rank(), comm.world());
    train(stage, config, &args, comm).map_err(|error| ranks::named(error, who))
}

/// Trains in this process.
fn train(stage: Stage, config: Config, args: &StageArgs, comm: Comm) -> Result<ExitCode> {
    if comm.is_first() {
        notes(stage, &config)?;
    }
    let name = config.name.clone().unwrap_or_else(|| default_name(args.config.as_deref(), stage));
    let resume = comm.decide(|| {
        let resume = args.resume.find(&config.output_dir, &name, config.is_debug)?;
        if args.resume == Resume::Auto {
            say(&found(resume.as_ref(), &config, &name));
        }
        if !args.dry_run {
            let place = resume.as_ref().map_or(config.output_dir.as_path(), |resume| resume.folder.as_path());
            RunFolder::check(place, &name)
                .map_err(|error| usage(format!("{error:#}; choose another with -o or --name")))?;
        }
        Ok(resume)
    })?;
    let first = comm.is_first();
    let mut run = Run::prepare(stage, config, comm)?;
    if args.dry_run {
        let loss = run.dry(resume.as_ref())?;
        if first {
            println!("{}", describe(&run.summary(None)));
            println!("loss on the next clips: {loss:.5}; nothing was written");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = Terminal::default();
    let observer: &mut dyn Observer = if first { &mut terminal } else { &mut Follower };
    let finished = match resume {
        Some(point) => run.resume(&point, observer)?,
        None => run.start(&name, observer)?,
    };
    terminal.finish();
    Ok(report(&finished, first))
}

/// What the configuration says and may not mean.
fn notes(stage: Stage, config: &Config) -> Result<()> {
    for key in config.unused(stage) {
        say(&format!("note: `{key}` is for other stages; `train {stage}` does not use it"));
    }
    if let Some(path) = config.motion.as_ref().filter(|_| stage == Stage::MotionLora) {
        let trained = Motion::read(path, None)?.noise_scheduler_kwargs;
        if trained != config.noise_scheduler_kwargs {
            warn_of_schedule(path, &yaml::to_text(&trained));
        }
    }
    if matches!(stage, Stage::Adapter | Stage::Image) {
        let base = Base::open_files(&config.base_files())?;
        base.notes.iter().for_each(|note| say(&format!("note: {note}")));
        let bases = base.noise_scheduler_kwargs.process();
        if bases != config.noise_scheduler_kwargs.process() {
            warn_of_schedule(&config.pretrained_model_path, &yaml::to_text(&bases));
        }
    }
    Ok(())
}

fn warn_of_schedule(path: &Path, own: &str) {
    say(&format!(
        "warning: `noise_scheduler_kwargs` is not what {} was trained on; to train on its own, set it to\n{own}",
        path.display()
    ));
}

/// What `--resume auto` came to.
fn found(resume: Option<&Point>, config: &Config, name: &str) -> String {
    match resume {
        Some(point) => format!("going on from {}", point.checkpoint.display()),
        None => {
            let name = if config.is_debug { "debug" } else { name };
            format!("no run `{name}` in {} left a checkpoint: starting a new one", config.output_dir.display())
        }
    }
}

impl StageArgs {
    /// The shorthands as settings, before those that are given as such.
    fn overrides(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let texts = [
            ("pretrained_model_path", path(&self.base)),
            ("adapter", path(&self.adapter)),
            ("motion", path(&self.motion)),
            ("name", self.name.clone()),
            ("output_dir", path(&self.output_dir)),
            ("device", self.device.map(|device| device.to_string())),
            ("precision", self.precision.map(|precision| precision.to_string())),
        ];
        let texts = texts.iter().filter_map(|(key, text)| Some(setting(key, text.as_ref()?)));
        let steps =
            self.max_steps.iter().flat_map(|steps| [format!("max_train_steps={steps}"), "max_train_epoch=-1".into()]);
        texts.chain(self.clips.settings()).chain(steps).chain(self.set.iter().cloned()).collect()
    }
}

fn default_name(config: Option<&Path>, stage: Stage) -> String {
    let stem = config.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| stage.to_string())
}

fn describe(summary: &Summary) -> String {
    let Summary { stage, clips, parameters: (trained, frozen), steps, clips_per_step, device, ranks, .. } = summary;
    let (done, total) = steps;
    let together = if *ranks == 1 { String::new() } else { format!(", {ranks} processes") };
    format!(
        "train {stage}: {clips} clips, {clips_per_step} per step, steps {done} to {total}; {:.2} M parameters trained, \
         {:.2} M frozen; {device}{together}",
        *trained as f64 / 1e6,
        *frozen as f64 / 1e6
    )
}

/// What came of it; the clips that could not be read are each process's own, the rest is the first's to tell.
fn report(finished: &Finished, first: bool) -> ExitCode {
    if finished.faults.unreadable() > 0 {
        say(&finished.faults.to_string());
    }
    if first {
        println!("{}", finished.export.display());
        if finished.interrupted.is_some() {
            say(&format!("stopped by a signal; go on with --resume {}", finished.folder.display()));
        }
    }
    finished.interrupted.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(signal.exit_code() as u8))
}

/// Share of the time spent waiting for data from which on it is said.
const WORTH_TELLING: f64 = 0.1;

/// One of several processes that are not the first, which tells of the run.
struct Follower;

impl Observer for Follower {
    fn started(&mut self, _: &Summary) {}
    fn stepped(&mut self, _: &StepReport, _: &Pace) {}
    fn wrote(&mut self, _: &str, _: &Path) {}
    fn note(&mut self, _: &str) {}
}

/// A run on a terminal: a bar with loss, learning rate, pace and time left.
#[derive(Default)]
struct Terminal {
    bar: Option<Progress>,
}

impl Terminal {
    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}

impl Observer for Terminal {
    fn started(&mut self, summary: &Summary) {
        say(&describe(summary));
        if let Some(folder) = &summary.folder {
            say(&format!("run folder: {}", folder.display()));
        }
        self.bar = Some(Progress::new(summary.steps.1 as u64, format!("train {}", summary.stage)));
    }

    fn stepped(&mut self, report: &StepReport, pace: &Pace) {
        let mut note = format!(
            "loss {:.4} lr {:.2e} {:.2} clips/s {} left",
            report.loss,
            report.lr,
            pace.clips_per_second,
            clock(pace.left)
        );
        if pace.waiting > WORTH_TELLING {
            note += &format!(", {:.0} % of the time waiting for data", 100.0 * pace.waiting);
        }
        if let Some(bar) = &mut self.bar {
            bar.at(report.step as u64, note);
        }
    }

    fn wrote(&mut self, what: &str, path: &Path) {
        say(&format!("{what} {}", path.display()));
    }

    fn note(&mut self, text: &str) {
        say(text);
    }
}
