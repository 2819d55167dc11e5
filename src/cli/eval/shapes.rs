//! `animatediff eval shapes`: how much of its prompts a base, or an animation from it, gets right.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::super::{as_usage, data::make_room, progress::Progress, sample::LoraEntry, usage};
use crate::{
    assemble::Base,
    data::shapes::{Split, Style},
    device::DeviceChoice,
    reproduce::{
        exam::{Exam, Marks},
        gallery,
        measure::jump_parts,
        sampling::{How, Order},
    },
};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset shapes base/
  animatediff eval shapes --base base/ --prompts 4
  animatediff data shapes shapes/
  animatediff train motion -c configs/shapes/motion.yaml --base base/ \\
      --csv shapes/clips.csv --set train_data.video_folder=shapes/videos \\
      --set lr_warmup_steps=0 --set is_debug=true --max-steps 1
  animatediff eval shapes --base base/ --prompts 2 --steps 2 -o shown/ \\
      --motion outputs/debug/export/motion_module.safetensors";

/// Measure a base of the world of shapes, or animations from it: how much of the prompts they get right, and how evenly
/// animations go on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Base model: a folder in the diffusers layout
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// Motion module: measures animations; without one, stills and the VAE
    #[arg(long, value_name = "FILE")]
    motion: Option<PathBuf>,
    /// Domain adapter
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
    /// Its scale; 0 drops it
    #[arg(long, value_name = "X", requires = "adapter", allow_negative_numbers = true, default_value_t = 1.0)]
    adapter_scale: f64,
    /// MotionLoRA with its scale (1 if not given); may be repeated
    #[arg(long, value_name = "FILE[:SCALE]", requires = "motion")]
    motion_lora: Vec<String>,
    /// The style that the base paints in
    #[arg(long, value_enum, default_value_t = Style::Flat)]
    style: Style,
    /// Number of prompts (200 for stills, 64 for animations)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    prompts: Option<u32>,
    /// Which combinations of shape, colour and motion (all unless given)
    #[arg(long, value_enum, requires = "motion")]
    split: Option<Split>,
    /// Seed of prompts and noise
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Denoising steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: i64,
    /// Classifier-free guidance
    #[arg(long, value_name = "X", default_value_t = 4.0)]
    guidance_scale: f64,
    /// Frames per animation (8 unless given)
    #[arg(long, value_name = "N", requires = "motion", value_parser = clap::value_parser!(u32).range(2..=1024))]
    frames: Option<u32>,
    /// auto, cpu, cuda or cuda:n
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Folder to make: all samples, and index.html that shows them with their verdicts
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

/// Samples, judges, and prints the marks.
pub fn run(args: Args) -> Result<()> {
    let exam = args.exam()?;
    if let Some(folder) = &args.output {
        let ours = |path: &std::path::Path| {
            path.extension().is_some_and(|extension| ["html", "gif", "png"].iter().any(|own| extension == *own))
        };
        make_room(folder, args.overwrite, ours).map_err(as_usage)?;
    }
    let mut progress: Option<Progress> = None;
    let (marks, answers) = exam.sit(|done, total| {
        progress.get_or_insert_with(|| Progress::new(total, "sampling")).at(done, "denoising".into());
        Ok(())
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(folder) = &args.output {
        let title = if args.motion.is_some() { "Animations" } else { "Stills" };
        let title = format!("{title} of {}", args.base.display());
        gallery::write(folder, &title, &lines(&marks), &answers)
            .with_context(|| format!("{}: cannot be written", folder.display()))?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&marks)?);
    } else {
        println!("{}", lines(&marks).join("\n"));
        if let Some(folder) = &args.output {
            println!("{}", folder.join("index.html").display());
        }
    }
    Ok(())
}

impl Args {
    fn exam(&self) -> Result<Exam> {
        let animated = self.motion.is_some();
        let loras =
            self.motion_lora.iter().map(|text| LoraEntry::parse("--motion-lora", text)).collect::<Result<Vec<_>>>()?;
        for (flag, value) in [("--adapter-scale", self.adapter_scale), ("--guidance-scale", self.guidance_scale)] {
            if !value.is_finite() {
                return Err(usage(format!("{flag} {value}: a number is expected")));
            }
        }
        let order = Order {
            name: "sampling".into(),
            base: self.base.clone(),
            motion: self.motion.clone(),
            adapter: self.adapter.clone().map(|path| (path, self.adapter_scale)),
            motion_loras: loras.into_iter().map(|entry| (entry.path, entry.alpha)).collect(),
            prompts: Vec::new(),
            frames: if animated { self.frames.unwrap_or(8) as usize } else { 1 },
            first_seed: 1000 * (i64::from(self.seed) + 1),
        };
        if let Err((_, message)) = order.cast()?.schedule(&Base::open(&self.base)?).check(self.steps) {
            return Err(usage(format!("--steps {}: {message}", self.steps)));
        }
        Ok(Exam {
            order,
            how: How { steps: self.steps, guidance_scale: self.guidance_scale, batch: 8 },
            prompts: self.prompts.unwrap_or(if animated { 64 } else { 200 }) as usize,
            split: self.split.unwrap_or(Split::All),
            style: self.style,
            seed: u64::from(self.seed),
            device: self.device.resolve().map_err(usage)?,
        })
    }
}

/// The marks as people read them.
fn lines(marks: &Marks) -> Vec<String> {
    let share = |name: &str, share: f64| format!("{name:<22} {:5.1} % of {} prompts", 100.0 * share, marks.prompts);
    let mut lines = Vec::new();
    lines.extend(marks.prompted_motion.map(|value| share("prompted motion", value)));
    lines.push(share("shape and colour", marks.shape_and_colour));
    lines.extend(marks.all_three.map(|value| share("all three", value)));
    lines.extend(marks.followed.map(|value| share("shape can be followed", value)));
    for (name, times) in marks.jumps.into_iter().flat_map(jump_parts) {
        lines.push(format!("{name:<22} {times:5.2} times rendered clips'"));
    }
    lines.extend(marks.vae_psnr_db.map(|value| format!("{:<22} {value:5.1} dB", "VAE, rendered pictures")));
    lines.extend(marks.vae_shape_and_colour.map(|value| share("VAE, shape and colour", value)));
    lines
}
