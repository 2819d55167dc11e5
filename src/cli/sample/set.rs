//! One job: what it asks for, settled before any weights are read, and the networks that do it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::job::{self, Job, LoraEntry, Shot};
use crate::{
    assemble::{AssembleError, Base, InferenceConfig, Motion},
    cli::{
        progress::{Progress, say},
        usage,
    },
    device::Precision,
    diffusion,
    frame::Frame,
    nn::Source,
    sample::{Cast, Request, Studio},
    weights,
    yaml::{self, Layers, UserFile},
};

/// A job whose configurations were read and whose requests were checked: what is left are weights and work.
pub struct Order<'a> {
    job: &'a Job,
    base: Base,
    inference: InferenceConfig,
    /// One per prompt.
    pub requests: Vec<Request>,
}

impl<'a> Order<'a> {
    /// Reads what is small, and refuses what cannot be done.
    pub fn new(job: &'a Job, shots: &[Shot]) -> Result<Order<'a>> {
        let base = Base::open_files(&job.base_files()?)?;
        let inference = match &job.inference_config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
                yaml::load(Layers { file: Some(UserFile { path, text: &text }), ..Layers::default() })?
            }
            None => InferenceConfig::default(),
        };
        let order = Order { job, base, inference, requests: Vec::new() };
        let schedule = order.cast()?.schedule(&order.base);
        let requests = shots.iter().map(|shot| order.request(shot, &schedule)).collect::<Result<_>>()?;
        Ok(Order { requests, ..order })
    }

    /// What goes into the UNet; the motion module's weights are not read yet.
    fn cast(&self) -> Result<Cast> {
        let Order { job, inference, .. } = self;
        let read = |path: &PathBuf| {
            let mut motion = Motion::read(path, inference.unet_additional_kwargs.clone())?;
            if let Some(scope) = job.motion_norm {
                motion.config.motion_norm = scope;
            }
            Ok::<_, AssembleError>(motion)
        };
        let scale = job.adapter_lora_scale.unwrap_or(1.0);
        let loras = job.motion_module_lora_configs.iter();
        Ok(Cast {
            motion: job.motion_module.as_ref().map(read).transpose()?,
            adapter: job.adapter_lora_path.clone().map(|path| (path, scale)),
            motion_loras: loras.map(|LoraEntry { path, alpha }| (path.clone(), *alpha)).collect(),
            loras: job.all_loras(),
            ignore_alpha: job.lora_ignore_alpha.unwrap_or(false),
            embeddings: job.embeddings.clone(),
            noise_scheduler_kwargs: inference.noise_scheduler_kwargs.clone(),
        })
    }

    /// Frames per second of the clips.
    pub fn fps(&self) -> f64 {
        self.job.fps.unwrap_or(8.0)
    }

    fn request(&self, shot: &Shot, schedule: &diffusion::Config) -> Result<Request> {
        let (job, scale) = (self.job, self.base.vae.downscale());
        let native = self.base.unet.sample_size * scale;
        let request = Request {
            prompt: shot.prompt.clone(),
            negative_prompt: shot.negative_prompt.clone(),
            seed: shot.seed,
            steps: job.steps.unwrap_or(25),
            guidance_scale: job.guidance_scale.unwrap_or(7.5),
            width: job.width.unwrap_or(native),
            height: job.height.unwrap_or(native),
            frames: job.frames.unwrap_or(if job.motion_module.is_some() { 16 } else { 1 }),
        };
        for (flag, size) in [("-W", request.width), ("-H", request.height)] {
            if size < scale || size % scale != 0 {
                let near = ((size + scale / 2) / scale).max(1) * scale;
                return Err(usage(format!("{flag} {size}: sizes must be divisible by {scale}; {near} is the nearest")));
            }
        }
        if let Err((key, message)) = schedule.check(request.steps) {
            return Err(usage(match key {
                "steps" => format!("--steps {}: {message}", request.steps),
                _ => format!("`noise_scheduler_kwargs.{key}`: {message}"),
            }));
        }
        if request.frames < 1 {
            return Err(usage(format!("-L {}: at least 1 frame is expected", request.frames)));
        }
        if !request.guidance_scale.is_finite() {
            return Err(usage("--guidance-scale: a number is expected".to_owned()));
        }
        Ok(request)
    }
}

/// The networks of one job. Built anew for every job, so that nothing of one shows in the next.
pub struct Set<'a> {
    job: &'a Job,
    studio: Studio,
    noise: Option<Noise>,
}

impl<'a> Set<'a> {
    /// Reads all weights of `order`.
    pub fn open(order: &Order<'a>, device: Device) -> Result<Set<'a>> {
        let Order { job, base, requests, .. } = order;
        let first = job.latents_row.unwrap_or(0);
        let noise = job.latents.as_deref().map(|path| Noise::read(path, first, requests.len())).transpose()?;
        let cast = order.cast()?;
        if let (Some(path), Some(motion)) = (&job.motion_module, &cast.motion) {
            let version = motion.config.version().unwrap_or("of its own architecture");
            say(&format!("motion module {}: {version}", path.display()));
        }
        base.notes.iter().for_each(|note| say(&format!("note: {note}")));
        let studio = Studio::open(base, cast, device, job.dtype.unwrap_or_default().for_sampling(device))?;
        Ok(Set { job, studio, noise })
    }

    /// What a user should know about a request that works, but perhaps not as meant.
    fn warn(&self, request: &Request) {
        let trained = self.studio.motion().map(|motion| motion.motion_module_kwargs.temporal_position_encoding_max_len);
        if let Some(trained) = trained.filter(|&trained| request.frames > trained) {
            say(&format!(
                "warning: {} frames are more than the {trained} the motion module was made for",
                request.frames
            ));
        }
        for prompt in [&request.prompt, &request.negative_prompt] {
            let dropped = self.studio.tokenizer().dropped_tokens(prompt);
            if dropped > 0 {
                let words: String = prompt.chars().take(40).collect();
                say(&format!("warning: the prompt `{words}…` is {dropped} tokens longer than what the model reads"));
            }
        }
    }

    /// Samples clip number `row` of the job: its latents, on the CPU, and its frames.
    pub fn sample(&self, request: &Request, row: usize, label: &str) -> Result<(Tensor, Vec<Frame>)> {
        self.warn(request);
        let pipeline = self.studio.pipeline();
        let shape = pipeline.latent_shape(request);
        let noise = match self.noise.as_ref().map(|noise| noise.row(row)) {
            Some(noise) if noise.size() == shape => noise,
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
        ensure!(finite, "the latents became NaN or infinite; try --dtype fp32, or other weights");
        let frames = pipeline.decode(&latents);
        Ok((latents.to_device(Device::Cpu), frames))
    }

    /// The job that makes this clip again, and nothing else.
    pub fn settings(&self, row: usize, request: &Request) -> Job {
        let job = self.job;
        Job {
            prompt: job::Many(vec![request.prompt.clone()]),
            n_prompt: job::Many(vec![request.negative_prompt.clone()]),
            seed: job::Many(vec![job::Seed::from(request.seed)]),
            dtype: Some(Precision::of(self.studio.kind())),
            latents_row: job.latents.as_ref().map(|_| job.latents_row.unwrap_or(0) + row as i64),
            steps: Some(request.steps),
            guidance_scale: Some(request.guidance_scale),
            width: Some(request.width),
            height: Some(request.height),
            frames: Some(request.frames),
            fps: Some(job.fps.unwrap_or(8.0)),
            scheduler: Some("ddim".into()),
            motion_norm: self.studio.motion().map(|motion| motion.motion_norm),
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
    fn read(path: &Path, first: i64, prompts: usize) -> Result<Noise> {
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
