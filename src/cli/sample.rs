//! `animatediff sample`: prompts to animations, from flags or from the official job YAML.

mod job;
mod output;
mod set;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use tch::{Device, Kind, Tensor};

pub(super) use self::job::LoraEntry;
use self::{
    job::{Job, Shot},
    output::Target,
    set::{Order, Set},
};
use super::{
    ranks::{self, Ranks},
    usage,
};
use crate::{
    clip::Clip,
    device::{DeviceChoice, Precision},
    dist::Comm,
    frame::Frame,
    nn::NormScope,
    sample::Request,
    weights::write::write_safetensors,
    yaml::{self, Layers, UserFile},
};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff sample --base base/ --prompt 'a circle' --steps 5 -o still.png
  animatediff data shapes shapes/
  animatediff train motion --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set train_data.sample_stride=1 --set is_debug=true --max-steps 2
  animatediff sample --base base/ --prompt 'a red circle' --prompt box \\
      --motion outputs/debug/export/motion_module.safetensors --steps 5 \\
      --seed 1 -o clips/
  animatediff sample -c clips/0-a-red-circle.gif.yaml -o again.gif
Add a domain adapter with --adapter FILE, MotionLoRAs with --motion-lora FILE:0.8";

/// Make animations from prompts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Jobs: a YAML list with the official keys; flags override them
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base model: a folder in the diffusers layout, or a whole checkpoint in one file; `hf:owner/repo` names the Hub's
    #[arg(long, value_name = "DIR|FILE")]
    base: Option<PathBuf>,
    /// Personalised model whose parts replace the base's: a checkpoint, a UNet, or a folder of either
    #[arg(long, value_name = "FILE|DIR")]
    dreambooth: Option<PathBuf>,
    /// VAE in the place of the base's
    #[arg(long, value_name = "FILE|DIR")]
    vae: Option<PathBuf>,
    /// Motion module; without one, a still picture is made
    #[arg(long, value_name = "FILE|DIR")]
    motion: Option<PathBuf>,
    /// Domain adapter
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
    /// Its scale; 0 drops it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    adapter_scale: Option<f64>,
    /// MotionLoRA with its scale (1 if not given); may be repeated
    #[arg(long, value_name = "FILE[:SCALE]")]
    motion_lora: Vec<String>,
    /// LoRA on the UNet, the text encoder or both, with its scale (1 if not given); may be repeated
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    /// Leave the alpha of LoRAs out, as the official loader does
    #[arg(long)]
    lora_ignore_alpha: bool,
    /// Textual-inversion embedding, used by its name in prompts; may be repeated
    #[arg(long, value_name = "FILE")]
    embedding: Vec<PathBuf>,
    /// What to show; may be repeated
    #[arg(long)]
    prompt: Vec<String>,
    /// What to avoid: one for all prompts, or one for each
    #[arg(long)]
    negative_prompt: Vec<String>,
    /// One for all prompts, or one for each; -1 draws one and keeps it with the clip
    #[arg(long, allow_negative_numbers = true)]
    seed: Vec<String>,
    /// Denoising steps (25 if not given)
    #[arg(long)]
    steps: Option<i64>,
    /// Classifier-free guidance (7.5 if not given); 1 turns it off
    #[arg(long, allow_negative_numbers = true)]
    guidance_scale: Option<f64>,
    /// Sampler
    #[arg(long, value_enum)]
    scheduler: Option<Scheduler>,
    /// Width in pixels (the base model's own if not given)
    #[arg(short = 'W', long)]
    width: Option<i64>,
    /// Height in pixels
    #[arg(short = 'H', long)]
    height: Option<i64>,
    /// Frames (16 if not given)
    #[arg(short = 'L', long)]
    frames: Option<i64>,
    /// Frames per second of the result (8 if not given)
    #[arg(long)]
    fps: Option<f64>,
    /// Official inference YAML: unet_additional_kwargs, noise_scheduler_kwargs
    #[arg(long, value_name = "FILE")]
    inference_config: Option<PathBuf>,
    /// Statistics of the motion module's own norm: frame is official, clip is diffusers'
    #[arg(long, value_enum)]
    motion_norm: Option<Norm>,
    /// auto, cpu, cuda or cuda:n
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// auto (the default), fp32, bf16 or fp16
    #[arg(long)]
    dtype: Option<Precision>,
    /// Start from this noise: safetensors, `latents` [B, 4, F, h, w], a row per prompt
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Write the final latents, a row per prompt
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// .mp4, .gif, .webp, .png (one frame), or a folder: PNG frames for one prompt, a GIF for each of several
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    ranks: Ranks,
}

/// Samplers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheduler {
    /// DDIM with η = 0
    Ddim,
}

/// `--motion-norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Norm {
    /// Each frame by itself
    Frame,
    /// All frames together
    Clip,
}

/// How long a process waits for the clips of the others.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Samples every prompt of every job.
pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(code) = args.ranks.launch()? {
        return Ok(code);
    }
    let comm = ranks::join(PATIENCE)?;
    sample(&args, &comm).map_err(|error| ranks::named(error, (comm.rank(), comm.world())))?;
    Ok(ExitCode::SUCCESS)
}

/// Samples this process's share: every so many-th prompt. The first process puts together what shows all of them.
fn sample(args: &Args, comm: &Comm) -> Result<()> {
    let jobs = args.jobs()?;
    let shots: Vec<Vec<Shot>> = jobs.iter().map(Job::shots).collect::<Result<_>>()?;
    let prompts: Vec<&str> = shots.iter().flatten().map(|shot| shot.prompt.as_str()).collect();
    let target = match &args.output {
        Some(output) => Target::new(output, &prompts),
        None => Target::in_folder(&comm.decide(|| Ok(output::new_folder(args.config.as_deref())))?, &prompts),
    };
    // By one process, before any of them writes.
    comm.decide(|| {
        target.check(args.overwrite)?;
        args.save_latents.iter().try_for_each(|path| output::check_file(path, args.overwrite))
    })?;
    let device = args.device.of_rank(comm.local_rank()).resolve().map_err(usage)?;
    let orders: Vec<Order> =
        jobs.iter().zip(&shots).map(|(job, shots)| Order::new(job, shots)).collect::<Result<_>>()?;
    check_orders(&orders, &target, args.save_latents.is_some())?;
    let mut made = Made::default();
    let mut first = 0;
    for order in &orders {
        let own = |row: &usize| (first + row) % comm.world() == comm.rank();
        let rows: Vec<usize> = (0..order.requests.len()).filter(own).collect();
        // A job none of whose prompts is this process's needs no networks.
        let set = if rows.is_empty() { None } else { Some(Set::open(order, device)?) };
        for (row, set) in rows.into_iter().zip(set.iter().cycle()) {
            let (index, request) = (first + row, &order.requests[row]);
            let label = format!("{}/{}", index + 1, prompts.len());
            let (latents, frames) = set.sample(request, row, &label)?;
            let clip = Clip { frames, fps: order.fps() };
            let path = target.save(index, &clip, args.overwrite)?;
            target.save_settings(index, &set.settings(row, request))?;
            println!("{}", path.display());
            made.clips.push(clip);
            made.latents.push(latents);
        }
        first += order.requests.len();
    }
    if target.has_overview() && one_size(&orders) {
        let clips = all_clips(made.clips, comm, prompts.len())?;
        comm.decide(|| target.save_overview(&clips))?;
    }
    if let Some(path) = &args.save_latents {
        let latents = all(comm, &made.latents, Kind::Float, prompts.len())?;
        comm.decide(|| write_safetensors(path, [("latents", &Tensor::cat(&latents, 0))], &Default::default()))?;
    }
    Ok(())
}

/// What only shows when all requests are known: whether the files can hold the clips.
fn check_orders(orders: &[Order], target: &Target, one_tensor: bool) -> Result<()> {
    let clips: Vec<_> = orders.iter().flat_map(|order| order.requests.iter().map(|one| (one, order.fps()))).collect();
    for (index, (request, fps)) in clips.iter().enumerate() {
        target.check_clip(index, request.frames, *fps)?;
    }
    if one_tensor && !one_size(orders) {
        return Err(usage("--save-latents: the clips differ in size and go into one tensor; sample them one by one"));
    }
    Ok(())
}

/// Whether all clips have the same width, height and number of frames.
fn one_size(orders: &[Order]) -> bool {
    let size = |request: &Request| (request.width, request.height, request.frames);
    let mut sizes = orders.iter().flat_map(|order| order.requests.iter().map(size));
    sizes.next().is_none_or(|first| sizes.all(|size| size == first))
}

#[derive(Default)]
struct Made {
    clips: Vec<Clip>,
    latents: Vec<Tensor>,
}

/// The clips of all processes, which have one size, in the order of their prompts.
fn all_clips(clips: Vec<Clip>, comm: &Comm, count: usize) -> Result<Vec<Clip>> {
    if comm.world() == 1 {
        return Ok(clips);
    }
    let fps = comm.decide(|| Ok(clips[0].fps))?;
    let pixels = |clip: &Clip| {
        let (width, height) = (clip.frames[0].width as i64, clip.frames[0].height as i64);
        let bytes: Vec<u8> = clip.frames.iter().flat_map(|frame| frame.rgb.iter().copied()).collect();
        Tensor::from_slice(&bytes).view([-1, height, width, 3])
    };
    let own: Vec<Tensor> = clips.iter().map(pixels).collect();
    let frame = |pixels: Tensor| {
        let (height, width) = (pixels.size()[0] as usize, pixels.size()[1] as usize);
        Frame { width, height, rgb: Vec::try_from(pixels.flatten(0, -1)).expect("bytes") }
    };
    let clip = |pixels: Tensor| Clip { frames: pixels.unbind(0).into_iter().map(frame).collect(), fps };
    Ok(all(comm, &own, Kind::Uint8, count)?.into_iter().map(clip).collect())
}

/// The `count` tensors of all processes, each of which has every so many-th of them: all of one shape and `kind`, the first process's
/// first.
fn all(comm: &Comm, own: &[Tensor], kind: Kind, count: usize) -> Result<Vec<Tensor>> {
    let shape = comm.decide(|| Ok(own[0].size()))?;
    let blank = || Tensor::zeros(&shape, (kind, Device::Cpu));
    let mut all = Vec::new();
    for round in 0..count.div_ceil(comm.world()) {
        let own = own.get(round).map_or_else(blank, |tensor| tensor.to_device(Device::Cpu));
        all.extend(comm.gather_tensors(&own)?);
    }
    all.truncate(count);
    Ok(all)
}

impl Args {
    /// The jobs of the file, or one of no file, under the flags.
    fn jobs(&self) -> Result<Vec<Job>> {
        let mut jobs = match &self.config {
            Some(path) => read_jobs(path)?,
            None => vec![Job::default()],
        };
        let mut row = 0;
        for job in &mut jobs {
            self.override_job(job)?;
            job.check()?;
            if self.latents.is_some() {
                job.latents_row = Some(row);
                row += job.prompt.0.len() as i64;
            }
        }
        Ok(jobs)
    }

    fn override_job(&self, job: &mut Job) -> Result<()> {
        fn set<T: Clone>(key: &mut Option<T>, flag: &Option<T>) {
            if flag.is_some() {
                key.clone_from(flag);
            }
        }
        set(&mut job.pretrained_model_path, &self.base);
        set(&mut job.dreambooth_path, &self.dreambooth);
        set(&mut job.vae_path, &self.vae);
        set(&mut job.motion_module, &self.motion);
        set(&mut job.adapter_lora_path, &self.adapter);
        set(&mut job.adapter_lora_scale, &self.adapter_scale);
        set(&mut job.steps, &self.steps);
        set(&mut job.guidance_scale, &self.guidance_scale);
        set(&mut job.width, &self.width);
        set(&mut job.height, &self.height);
        set(&mut job.frames, &self.frames);
        set(&mut job.fps, &self.fps);
        set(&mut job.inference_config, &self.inference_config);
        set(&mut job.motion_norm, &self.motion_norm.map(Norm::scope));
        set(&mut job.dtype, &self.dtype);
        set(&mut job.latents, &self.latents);
        if self.scheduler == Some(Scheduler::Ddim) {
            job.scheduler = Some("ddim".into());
        }
        if !self.motion_lora.is_empty() {
            job.motion_module_lora_configs =
                self.motion_lora.iter().map(|text| LoraEntry::parse("--motion-lora", text)).collect::<Result<_>>()?;
        }
        if !self.lora.is_empty() {
            (job.lora_model_path, job.lora_alpha) = (None, None);
            job.loras = self.lora.iter().map(|text| LoraEntry::parse("--lora", text)).collect::<Result<_>>()?;
        }
        if self.lora_ignore_alpha {
            job.lora_ignore_alpha = Some(true);
        }
        if !self.embedding.is_empty() {
            job.embeddings.clone_from(&self.embedding);
        }
        if !self.prompt.is_empty() {
            job.prompt = job::Many(self.prompt.clone());
        }
        if !self.negative_prompt.is_empty() {
            job.n_prompt = job::Many(self.negative_prompt.clone());
        }
        if !self.seed.is_empty() {
            job.seed =
                job::Many(self.seed.iter().map(|text| job::Seed::parse(text).map_err(usage)).collect::<Result<_>>()?);
        }
        Ok(())
    }
}

impl Norm {
    fn scope(self) -> NormScope {
        match self {
            Norm::Frame => NormScope::Frame,
            Norm::Clip => NormScope::Clip,
        }
    }
}

fn read_jobs(path: &std::path::Path) -> Result<Vec<Job>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
    let jobs: Vec<Job> = yaml::load(Layers { file: Some(UserFile { path, text: &text }), ..Layers::default() })?;
    if jobs.is_empty() {
        return Err(usage(format!("{}: no jobs in it; a list of jobs is expected", path.display())));
    }
    Ok(jobs)
}
