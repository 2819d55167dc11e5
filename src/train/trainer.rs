//! One update: pixels and captions in, loss and gradient norm out.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Config, draws::Draws, lr, optim::AdamW, recipe::Recipe};
use crate::{
    assemble::Base,
    data::Sample,
    diffusion::{self, NoiseSchedule},
    model::{
        clip::TextEncoder,
        unet::{UNet, motion},
        vae::Vae,
    },
    native::autocast,
    sample::Pipeline,
    tokenizer::Tokenizer,
};

/// Pictures that go through the VAE together; the result does not depend on it.
const ENCODE_CHUNK: i64 = 8;

/// The networks of a run, and its optimizer.
pub struct Trainer {
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    vae: Vae,
    unet: UNet,
    /// All tensors of the UNet and, below `text_encoder.`, of a trained text encoder; trained and frozen.
    pub weights: Weights,
    /// The motion module's architecture, where there is one.
    pub architecture: Option<motion::Config>,
    /// AdamW over [`Weights::trained`].
    pub optimizer: AdamW,
    schedule: NoiseSchedule,
    lr: lr::Schedule,
    config: Config,
    trains_text: bool,
    frames: i64,
    device: Device,
    kind: Kind,
    step: i64,
}

/// Tensors by name: `unet.…` and `text_encoder.…`.
pub struct Weights {
    /// Updated by the optimizer, float32.
    pub trained: BTreeMap<String, Tensor>,
    /// Never updated.
    pub frozen: BTreeMap<String, Tensor>,
}

/// What an update was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Updates done, this one included.
    pub step: i64,
    /// Loss before the update, mean over its clips.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
}

impl Trainer {
    /// Builds the networks of `recipe` on `base`; the initialisation of new weights depends on the seed alone.
    pub fn new(config: &Config, recipe: &Recipe, base: &Base, steps: i64, device: Device) -> Result<Trainer> {
        let kind = training_kind(config, device);
        tch::manual_seed(config.global_seed as i64);
        let (unet, unet_store, architecture) = recipe.unet(config, base, device, kind)?;
        let (text_encoder, text_store) = recipe.text_encoder(base, device)?;
        let vae = base.vae(device, Kind::Float)?;
        let trains_text = !text_store.trained.is_empty();
        let named = |unet: BTreeMap<String, Tensor>, text: BTreeMap<String, Tensor>| {
            let unet = unet.into_iter().map(|(name, tensor)| (format!("unet.{name}"), tensor));
            let text = text.into_iter().map(|(name, tensor)| (format!("text_encoder.{name}"), tensor));
            unet.chain(text).collect::<BTreeMap<_, _>>()
        };
        let weights = Weights {
            trained: named(unet_store.trained, text_store.trained),
            frozen: named(unet_store.frozen, text_store.frozen),
        };
        Ok(Trainer {
            tokenizer: base.tokenizer()?,
            text_encoder,
            vae,
            unet,
            optimizer: AdamW::new(&weights.trained, config.adam()),
            weights,
            architecture,
            schedule: NoiseSchedule::new(&config.noise_scheduler_kwargs),
            lr: config.lr_schedule(steps),
            config: config.clone(),
            trains_text,
            frames: recipe.frames as i64,
            device,
            kind,
            step: 0,
        })
    }

    /// Updates done.
    pub fn step(&self) -> i64 {
        self.step
    }

    /// Where it computes, and in what.
    pub fn device(&self) -> (Device, Kind) {
        (self.device, self.kind)
    }

    /// Pixels per latent, along each side.
    pub fn downscale(&self) -> i64 {
        self.vae.config().downscale()
    }

    /// Sampling from the model as it stands.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            tokenizer: &self.tokenizer,
            text_encoder: &self.text_encoder,
            vae: &self.vae,
            unet: &self.unet,
            schedule: &self.schedule,
            device: self.device,
            kind: self.kind,
        }
    }

    /// One update on `samples`, in as many passes as the batch size makes of them. Nothing is updated when the loss or a
    /// gradient is not finite: that is the error. `stop` is asked between passes; an update that it ends is none at all.
    pub fn update(&mut self, samples: &[Sample], stop: impl Fn() -> bool) -> Result<Option<StepReport>> {
        let draws = self.draws(samples);
        self.optimizer.zero_grad();
        let Some(loss) = self.accumulate(samples, &draws, Tensor::backward, stop) else { return Ok(None) };
        let grad_norm = self.optimizer.clip_grad_norm(self.config.max_grad_norm);
        if !loss.is_finite() || !grad_norm.is_finite() {
            let ids: Vec<&str> = samples.iter().map(|sample| sample.id.as_str()).collect();
            bail!(
                "step {}: loss {loss} and gradient norm {grad_norm} are not both finite (clips {}); nothing was updated. \
                 Lower learning_rate, or go on from the last checkpoint with --resume",
                self.step + 1,
                ids.join(", ")
            );
        }
        let lr = self.lr.lr(self.config.base_lr(), self.step);
        self.optimizer.step(lr);
        self.step += 1;
        Ok(Some(StepReport { step: self.step, loss, grad_norm, lr }))
    }

    /// The loss on `samples` with the random numbers of the next update, without updating.
    pub fn evaluate(&self, samples: &[Sample]) -> f64 {
        no_grad(|| self.accumulate(samples, &self.draws(samples), |_| (), || false)).expect("nothing stops it")
    }

    /// Takes up where a checkpoint left off.
    pub fn restore(
        &mut self,
        step: i64,
        trained: &BTreeMap<String, Tensor>,
        moments: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        for (name, tensor) in &mut self.weights.trained {
            match trained.get(name).filter(|saved| saved.size() == tensor.size()) {
                Some(saved) => no_grad(|| tensor.copy_(saved)),
                None => bail!(
                    "the checkpoint has no `{name}` of shape {:?}: it is from another model or rank",
                    tensor.size()
                ),
            }
        }
        if let Some(name) = trained.keys().find(|name| !self.weights.trained.contains_key(*name)) {
            bail!("the checkpoint's `{name}` is not trained by this configuration");
        }
        if let Err(name) = self.optimizer.load_state(moments) {
            bail!("the checkpoint lacks the optimizer's `{name}`");
        }
        self.step = step;
        Ok(())
    }

    /// Mean loss over all passes; `backward` is given each pass's share of it. None when `stop` ended it early.
    fn accumulate(
        &self,
        samples: &[Sample],
        draws: &Draws,
        backward: impl Fn(&Tensor),
        stop: impl Fn() -> bool,
    ) -> Option<f64> {
        let batch = self.config.train_batch_size;
        let passes = samples.chunks(batch).enumerate();
        let loss = |(pass, chunk): (usize, &[Sample])| {
            let share = chunk.len() as f64 / samples.len() as f64;
            let loss = self.loss(chunk, &draws.part(pass * batch, chunk.len(), self.device)) * share;
            backward(&loss);
            (!stop()).then(|| loss.double_value(&[]))
        };
        passes.map(loss).sum()
    }

    fn loss(&self, samples: &[Sample], draws: &Draws) -> Tensor {
        let clean = self.latents(samples, &draws.posterior);
        let text = self.text(samples, &draws.drop_caption);
        diffusion::loss(&self.schedule, &clean, &draws.noise, &draws.timesteps, |noisy, timesteps| {
            autocast(self.device, self.kind, || self.unet.forward(noisy, timesteps, &text))
        })
    }

    /// Scaled latents `[B, C, F, h, w]` of the samples' pixels.
    fn latents(&self, samples: &[Sample], noise_bcfhw: &Tensor) -> Tensor {
        let (clips, channels, frames, height, width) = noise_bcfhw.size5().expect("[B, C, F, h, w]");
        let folded = |tensor: &Tensor| tensor.transpose(1, 2).reshape([clips * frames, channels, height, width]);
        let pixels: Vec<Tensor> = samples
            .iter()
            .map(|sample| {
                let shape = [sample.frames, 3, sample.height, sample.width].map(|size| size as i64);
                Tensor::from_slice(&sample.pixels).view(shape)
            })
            .collect();
        let pixels = Tensor::cat(&pixels, 0).to_device(self.device);
        let latents = no_grad(|| {
            let noise = folded(noise_bcfhw);
            let chunks = pixels.split(ENCODE_CHUNK, 0).into_iter().zip(noise.split(ENCODE_CHUNK, 0));
            let latents: Vec<Tensor> = chunks.map(|(pixels, noise)| self.vae.encode(&pixels).sample(&noise)).collect();
            Tensor::cat(&latents, 0) * self.vae.config().scaling_factor
        });
        latents.view([clips, frames, channels, height, width]).transpose(1, 2)
    }

    /// Text states `[B, L, D]`, some captions dropped.
    fn text(&self, samples: &[Sample], drop: &[bool]) -> Tensor {
        let captions = samples.iter().zip(drop).map(|(sample, &drop)| if drop { "" } else { sample.caption.as_str() });
        let ids: Vec<i64> = captions.flat_map(|caption| self.tokenizer.encode(caption)).collect();
        let ids = Tensor::from_slice(&ids).view([samples.len() as i64, -1]).to_device(self.device);
        if self.trains_text { self.text_encoder.forward(&ids) } else { no_grad(|| self.text_encoder.forward(&ids)) }
    }

    fn draws(&self, samples: &[Sample]) -> Draws {
        let config = &self.config;
        let (scale, size) = (self.downscale(), config.train_data.sample_size);
        let shape = [
            samples.len() as i64,
            self.vae.config().latent_channels,
            self.frames,
            size.height as i64 / scale,
            size.width as i64 / scale,
        ];
        let dropout = if config.cfg_random_null_text { config.cfg_random_null_text_ratio } else { 0.0 };
        let timesteps = config.noise_scheduler_kwargs.num_train_timesteps;
        Draws::new(config.global_seed, self.step, shape, timesteps, dropout)
    }
}

/// bf16 on CUDA where mixed precision is on; whatever `precision` says where it says something.
fn training_kind(config: &Config, device: Device) -> Kind {
    use crate::device::Precision;
    match config.precision {
        Precision::Auto if !config.mixed_precision_training => Kind::Float,
        precision => precision.kind(device),
    }
}
