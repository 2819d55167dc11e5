//! `animatediff sample`: prompts to animations, from flags or from the official job YAML.

mod job;
mod output;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tch::{Kind, Tensor};

use self::{
    job::{Job, LoraEntry, Shot},
    output::Target,
};
use super::{
    progress::{Progress, say},
    usage,
};
use crate::{
    assemble::{Base, InferenceConfig, Motion, UNetParts, read_adapter, read_motion_lora},
    clip::Clip,
    device::{DeviceChoice, Precision},
    diffusion::NoiseSchedule,
    nn::{NormScope, Plan, Source},
    sample::{Pipeline, Request},
    weights::{self, write::write_safetensors},
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
    /// Base model: a folder in the diffusers layout
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Motion module; without one, a still picture is made
    #[arg(long, value_name = "FILE")]
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

/// Samples every prompt of every job.
pub fn run(args: Args) -> Result<()> {
    let jobs = args.jobs()?;
    let shots: Vec<Vec<Shot>> = jobs.iter().map(Job::shots).collect::<Result<_>>()?;
    let prompts: Vec<&str> = shots.iter().flatten().map(|shot| shot.prompt.as_str()).collect();
    let target = Target::new(args.output.as_deref(), args.config.as_deref(), &prompts)?;
    target.check(args.overwrite)?;
    if let Some(path) = &args.save_latents {
        output::check_file(path, args.overwrite)?;
    }
    let device = args.device.resolve().map_err(usage)?;
    let mut made = Made::default();
    for (job, shots) in jobs.iter().zip(&shots) {
        let studio = Studio::open(job, device)?;
        let noise = job.latents.as_deref().map(|path| Noise::read(path, job.latents_row.unwrap_or(0), shots.len()));
        let noise = noise.transpose()?;
        for (row, shot) in shots.iter().enumerate() {
            let index = made.clips.len();
            let noise = noise.as_ref().map(|noise| noise.row(row));
            let request = studio.request(job, shot)?;
            let label = format!("{}/{}", index + 1, prompts.len());
            let (latents, frames) = studio.sample(&request, noise.as_ref(), &label)?;
            let clip = Clip { frames, fps: job.fps.unwrap_or(8.0) };
            let path = target.save(index, &clip, args.overwrite)?;
            target.save_settings(index, &studio.settings(job, row, &request))?;
            println!("{}", path.display());
            made.clips.push(clip);
            made.latents.push(latents);
        }
    }
    target.save_overview(&made.clips)?;
    if let Some(path) = &args.save_latents {
        let latents = Tensor::f_cat(&made.latents, 0)
            .context("--save-latents: the clips differ in size; sample them one by one")?;
        write_safetensors(path, [("latents", &latents)], &Default::default())?;
    }
    Ok(())
}

#[derive(Default)]
struct Made {
    clips: Vec<Clip>,
    latents: Vec<Tensor>,
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
                self.motion_lora.iter().map(|text| LoraEntry::parse(text)).collect::<Result<_>>()?;
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

/// The networks of one job. Built anew for every job, so that nothing of one shows in the next.
struct Studio {
    base: Base,
    tokenizer: crate::tokenizer::Tokenizer,
    text_encoder: crate::model::clip::TextEncoder,
    vae: crate::model::vae::Vae,
    unet: crate::model::unet::UNet,
    motion: Option<crate::model::unet::motion::Config>,
    schedule: NoiseSchedule,
    device: tch::Device,
    kind: Kind,
}

impl Studio {
    fn open(job: &Job, device: tch::Device) -> Result<Studio> {
        let kind = job.dtype.unwrap_or_default().kind(device);
        let base = Base::open(job.base()?)?;
        let inference = match &job.inference_config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
                yaml::load(Layers { file: Some(UserFile { path, text: &text }), ..Layers::default() })?
            }
            None => InferenceConfig::default(),
        };
        let mut parts = UNetParts::new(&base);
        if let Some(path) = &job.motion_module {
            let mut motion = Motion::read(path, inference.unet_additional_kwargs)?;
            if let Some(scope) = job.motion_norm {
                motion.config.motion_norm = scope;
            }
            parts.motion = Some(motion);
        }
        let motion = parts.motion.as_ref().map(|motion| motion.config.clone());
        if let (Some(path), Some(motion)) = (&job.motion_module, &motion) {
            say(&format!(
                "motion module {}: {}",
                path.display(),
                motion.version().unwrap_or("of its own architecture")
            ));
        }
        if let Some(path) = &job.adapter_lora_path {
            parts.merged.push((read_adapter(path)?, job.adapter_lora_scale.unwrap_or(1.0)));
        }
        for LoraEntry { path, alpha } in &job.motion_module_lora_configs {
            parts.merged.push((read_motion_lora(path)?, *alpha));
        }
        let (unet, _) = parts.build(Plan::frozen(), device, kind)?;
        let (text_encoder, _) = base.text_encoder(Plan::frozen(), device, Kind::Float)?;
        let (tokenizer, vae) = (base.tokenizer()?, base.vae(device, Kind::Float)?);
        let schedule = NoiseSchedule::new(&inference.noise_scheduler_kwargs);
        Ok(Studio { base, tokenizer, text_encoder, vae, unet, motion, schedule, device, kind })
    }

    fn request(&self, job: &Job, shot: &Shot) -> Result<Request> {
        let native = self.base.unet.sample_size * self.base.vae.downscale();
        let request = Request {
            prompt: shot.prompt.clone(),
            negative_prompt: shot.negative_prompt.clone(),
            seed: shot.seed,
            steps: job.steps.unwrap_or(25),
            guidance_scale: job.guidance_scale.unwrap_or(7.5),
            width: job.width.unwrap_or(native),
            height: job.height.unwrap_or(native),
            frames: job.frames.unwrap_or(if self.motion.is_some() { 16 } else { 1 }),
        };
        let scale = self.base.vae.downscale();
        for (flag, size) in [("-W", request.width), ("-H", request.height)] {
            if size < scale || size % scale != 0 {
                let near = ((size + scale / 2) / scale).max(1) * scale;
                return Err(usage(format!("{flag} {size}: sizes must be divisible by {scale}; {near} is the nearest")));
            }
        }
        let total = self.schedule.config().num_train_timesteps;
        if request.steps < 1 || request.steps > total {
            return Err(usage(format!("--steps {}: between 1 and {total} is expected", request.steps)));
        }
        if request.frames < 1 {
            return Err(usage(format!("-L {}: at least 1 frame is expected", request.frames)));
        }
        if !request.guidance_scale.is_finite() {
            return Err(usage("--guidance-scale: a number is expected".to_owned()));
        }
        self.warn(&request);
        Ok(request)
    }

    /// What a user should know about a request that works, but perhaps not as meant.
    fn warn(&self, request: &Request) {
        let trained = self.motion.as_ref().map(|motion| motion.motion_module_kwargs.temporal_position_encoding_max_len);
        if let Some(trained) = trained.filter(|&trained| request.frames > trained) {
            say(&format!(
                "warning: {} frames are more than the {trained} the motion module was made for",
                request.frames
            ));
        }
        for prompt in [&request.prompt, &request.negative_prompt] {
            let dropped = self.tokenizer.dropped_tokens(prompt);
            if dropped > 0 {
                let words: String = prompt.chars().take(40).collect();
                say(&format!("warning: the prompt `{words}…` is {dropped} tokens longer than what the model reads"));
            }
        }
    }

    fn sample(
        &self,
        request: &Request,
        noise: Option<&Tensor>,
        label: &str,
    ) -> Result<(Tensor, Vec<crate::frame::Frame>)> {
        let pipeline = Pipeline {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            vae: &self.vae,
            unet: &self.unet,
            schedule: &self.schedule,
            device: self.device,
            kind: self.kind,
        };
        let shape = pipeline.latent_shape(request);
        let noise = match noise {
            Some(noise) if noise.size() == shape => noise.shallow_clone(),
            Some(noise) => {
                return Err(usage(format!("--latents: a row is {:?}, and this clip's are {shape:?}", noise.size())));
            }
            None => pipeline.noise(request),
        };
        let mut progress = Progress::new(request.steps as u64, format!("clip {label}"));
        let latents = pipeline.denoise(request, &noise, |step| {
            progress.at(step as u64 + 1, "denoising".into());
            Ok::<_, anyhow::Error>(())
        })?;
        progress.finish();
        let finite = latents.isfinite().all().int64_value(&[]) == 1;
        anyhow::ensure!(finite, "the latents became NaN or infinite; try --dtype fp32, or other weights");
        let frames = pipeline.decode(&latents);
        Ok((latents.to_device(tch::Device::Cpu), frames))
    }

    /// The job that makes this clip again, and nothing else.
    fn settings(&self, job: &Job, row: usize, request: &Request) -> Job {
        let dtype = match self.kind {
            Kind::BFloat16 => Precision::Bf16,
            Kind::Half => Precision::Fp16,
            _ => Precision::Fp32,
        };
        Job {
            prompt: job::Many(vec![request.prompt.clone()]),
            n_prompt: job::Many(vec![request.negative_prompt.clone()]),
            seed: job::Many(vec![job::Seed::from(request.seed)]),
            dtype: Some(dtype),
            latents_row: job.latents.as_ref().map(|_| job.latents_row.unwrap_or(0) + row as i64),
            steps: Some(request.steps),
            guidance_scale: Some(request.guidance_scale),
            width: Some(request.width),
            height: Some(request.height),
            frames: Some(request.frames),
            fps: Some(job.fps.unwrap_or(8.0)),
            scheduler: Some("ddim".into()),
            motion_norm: self.motion.as_ref().map(|motion| motion.motion_norm),
            ..job.clone()
        }
    }
}

/// Given noise, `[B, C, F, h, w]`: a row per prompt, from some row on.
struct Noise {
    rows: Tensor,
    first: i64,
}

impl Noise {
    fn read(path: &std::path::Path, first: i64, prompts: usize) -> Result<Noise> {
        let mut tensors = weights::read(path)?.tensors;
        let wrong = |message: String| usage(format!("--latents {}: {message}", path.display()));
        let rows = tensors.take("latents").ok_or_else(|| wrong("it has no tensor `latents`".into()))?;
        let shape = rows.size();
        if shape.len() != 5 || first < 0 || shape[0] < first + prompts as i64 {
            let expected = first + prompts as i64;
            return Err(wrong(format!(
                "`latents` is {shape:?}; at least {expected} rows [C, F, h, w] are expected, one per prompt"
            )));
        }
        if rows.isfinite().all().int64_value(&[]) == 0 {
            return Err(wrong("`latents` holds NaN or infinite values".into()));
        }
        Ok(Noise { rows: rows.to_kind(Kind::Float), first })
    }

    fn row(&self, row: usize) -> Tensor {
        self.rows.narrow(0, self.first + row as i64, 1)
    }
}
