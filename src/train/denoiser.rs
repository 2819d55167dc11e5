//! What the stages of diffusion train: the UNet, and for the image stage the text encoder, on noise that was added.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use anyhow::Result;
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    Config,
    draws::Draws,
    encode::{self, Encoders},
    gradients::Gradients,
    latents::LatentCache,
    pixels,
    recipe::Recipe,
    trainer::Weights,
};
use crate::{
    assemble::Base,
    data::Sample,
    diffusion::{self, NoiseSchedule},
    frame::Frame,
    model::{
        unet::{UNet, motion},
        vae::Vae,
    },
    native,
    sample::{Networks, Pipeline},
};

/// What the UNet is asked about clips: one row each.
struct Question {
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    text: Tensor,
}

impl Question {
    /// In `parts` parts, as even as can be.
    fn split(&self, parts: usize) -> Vec<Question> {
        let rows = |tensor: &Tensor| tensor.tensor_split(parts as i64, 0).into_iter();
        let fields = rows(&self.clean).zip(rows(&self.noise)).zip(rows(&self.timesteps).zip(rows(&self.text)));
        fields.map(|((clean, noise), (timesteps, text))| Question { clean, noise, timesteps, text }).collect()
    }
}

/// How an answer is judged.
struct Judge<'a> {
    schedule: &'a NoiseSchedule,
    weighting: diffusion::Weighting,
    kind: Kind,
}

impl Judge<'_> {
    /// Mean squared error of what `unet` finds.
    fn error(&self, unet: &UNet, question: &Question) -> Tensor {
        let Question { clean, noise, timesteps, text } = question;
        diffusion::loss(self.schedule, clean, noise, timesteps, self.weighting, |noisy, timesteps| {
            unet.forward(noisy, timesteps, &text.to_kind(self.kind))
        })
    }
}

/// The networks of a diffusion stage.
#[derive(Debug)]
pub struct Denoiser {
    networks: Networks,
    trains_text: bool,
    weighting: diffusion::Weighting,
    cache: Option<RefCell<LatentCache>>,
    /// The motion module's architecture, where there is one.
    pub architecture: Option<motion::Config>,
}

impl Denoiser {
    /// Builds the networks of `recipe` on `base`, and gives their tensors.
    pub fn new(
        config: &Config,
        recipe: &Recipe,
        base: &Base,
        device: Device,
        kind: Kind,
    ) -> Result<(Denoiser, Weights)> {
        let (unet, unet_store, architecture) = recipe.unet(config, base, device, kind)?;
        // What a cache spares a run need not be where the run computes; previews find it in host memory.
        let aside = if config.train_data.cache.is_some() && !config.train_text_encoder { Device::Cpu } else { device };
        let (text_encoder, text_store) = recipe.text_encoder(base, aside)?;
        let vae = base.vae(aside, Kind::Float)?;
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
        let (tokenizer, schedule) = (base.tokenizer()?, NoiseSchedule::new(&config.noise_scheduler_kwargs));
        let denoiser = Denoiser {
            networks: Networks {
                tokenizer: Rc::new(tokenizer),
                text_encoder: Rc::new(text_encoder),
                vae: Rc::new(vae),
                unet,
                schedule,
                device,
                aside,
                kind,
            },
            trains_text,
            weighting: config.weighting(),
            cache: config.cache_latents.then(RefCell::default),
            architecture,
        };
        Ok((denoiser, weights))
    }

    /// The VAE, frozen.
    pub fn vae(&self) -> &Vae {
        &self.networks.vae
    }

    /// Sampling from the model as it stands.
    pub fn pipeline(&self) -> Pipeline<'_> {
        self.networks.pipeline()
    }

    /// The error of what the UNet finds in `samples`.
    pub fn loss(&self, samples: &[Sample], draws: &Draws) -> Tensor {
        self.judge().error(&self.networks.unet, &self.question(samples, draws))
    }

    /// `share` of the same as a number, with its gradients added to `gradients`. On the CPU the clips are shared out to
    /// as many threads as libtorch has: on the same clip, a second thread finds little to do in a narrow network.
    pub fn backward(&self, samples: &[Sample], draws: &Draws, share: f64, gradients: &Gradients) -> f64 {
        let (judge, question) = (self.judge(), self.question(samples, draws));
        // Several threads could not go through the one graph of a text encoder.
        let one_pass = self.networks.device.is_cuda() || self.trains_text;
        let parts = if one_pass { 1 } else { native::parts(samples.len()) };
        if parts == 1 {
            let loss = judge.error(&self.networks.unet, &question) * share;
            loss.backward();
            return loss.double_value(&[]);
        }
        let answer = |(unet, trained): &(&UNet, &[Tensor]), part: Question| {
            let share = share * part.timesteps.size()[0] as f64 / samples.len() as f64;
            let loss = judge.error(unet, &part) * share;
            (loss.double_value(&[]), Tensor::run_backward(&[&loss], trained, false, false))
        };
        let (mut total, trained) = (0.0, gradients.params());
        native::side_by_side(&(&self.networks.unet, trained), question.split(parts), answer, |(loss, grads)| {
            gradients.add(&grads);
            total += loss;
        });
        total
    }

    fn judge(&self) -> Judge<'_> {
        let Networks { schedule, kind, .. } = &self.networks;
        Judge { schedule, weighting: self.weighting, kind: *kind }
    }

    fn question(&self, samples: &[Sample], draws: &Draws) -> Question {
        Question {
            clean: self.latents(samples, &draws.posterior),
            noise: draws.noise.shallow_clone(),
            timesteps: draws.timesteps.shallow_clone(),
            text: self.text(samples, &draws.drop_caption),
        }
    }

    /// Scaled latents `[B, C, F, h, w]` of the samples' pixels.
    fn latents(&self, samples: &[Sample], noise_bcfhw: &Tensor) -> Tensor {
        let (clips, channels, frames, height, width) = noise_bcfhw.size5().expect("[B, C, F, h, w]");
        let noise = noise_bcfhw.transpose(1, 2).reshape([clips * frames, channels, height, width]);
        let latents = no_grad(|| {
            let moments = self.moments(samples).chunk(2, 1);
            (&moments[0] + (&moments[1] * 0.5).exp() * noise) * self.networks.vae.config().scaling_factor
        });
        latents.view([clips, frames, channels, height, width]).transpose(1, 2)
    }

    /// Mean and logarithm of the variance, side by side: `[B·F, 2·C, h, w]`.
    fn moments(&self, samples: &[Sample]) -> Tensor {
        let Networks { vae, device, aside, .. } = &self.networks;
        let encode = |samples: &[Sample]| encode::moments(vae, samples, *aside).to_device(*device);
        let each = |sample: &Sample| match (&sample.encoded, &self.cache) {
            (Some(encoded), _) => encode::tensor(&encoded.moments, *device),
            (None, Some(cache)) => cache.borrow_mut().get(sample, || encode(std::slice::from_ref(sample))),
            (None, None) => encode(std::slice::from_ref(sample)),
        };
        // Clip by clip gives what a cache of clips holds; on a GPU, where bits differ anyway, one pass is faster.
        if self.cache.is_none() && device.is_cuda() && samples.iter().all(|sample| sample.encoded.is_none()) {
            return encode(samples);
        }
        Tensor::cat(&samples.iter().map(each).collect::<Vec<_>>(), 0)
    }

    /// Text states `[B, L, D]`, some captions dropped.
    fn text(&self, samples: &[Sample], drop: &[bool]) -> Tensor {
        let Networks { tokenizer, text_encoder, device, aside, .. } = &self.networks;
        let encode = |captions: &[&str]| encode::states(tokenizer, text_encoder, captions, *aside).to_device(*device);
        let each = |(sample, drop): (&Sample, &bool)| match &sample.encoded {
            Some(encoded) if *drop => encode::tensor(&encoded.empty, *device).unsqueeze(0),
            Some(encoded) => encode::tensor(&encoded.states, *device).unsqueeze(0),
            None => encode(&[caption(sample, drop)]),
        };
        let rows = samples.iter().zip(drop);
        let together = || encode(&rows.clone().map(|(sample, drop)| caption(sample, drop)).collect::<Vec<_>>());
        if self.trains_text {
            return together();
        }
        no_grad(|| match device.is_cuda() && samples.iter().all(|sample| sample.encoded.is_none()) {
            true => together(),
            false => Tensor::cat(&rows.clone().map(each).collect::<Vec<_>>(), 0),
        })
    }

    /// What may encode clips while others are trained on: none where the text encoder is trained with them, or where a cache has
    /// them.
    pub fn encoders(&self) -> Option<Encoders> {
        let Networks { tokenizer, text_encoder, vae, device, aside, .. } = &self.networks;
        let free = self.cache.is_none() && !self.trains_text && device == aside;
        free.then(|| Encoders::new(tokenizer, text_encoder, vae, *device))
    }

    /// What a sample shows: its pixels, or what the VAE makes of the mean of its latents.
    pub fn frames(&self, sample: &Sample) -> Vec<Frame> {
        let Some(encoded) = sample.encoded.as_ref().filter(|_| sample.pixels.is_empty()) else {
            return pixels::frames(sample);
        };
        let pipeline = self.pipeline();
        let mean = encode::tensor(&encoded.moments, pipeline.aside).chunk(2, 1).swap_remove(0);
        let latents = (mean * pipeline.vae.config().scaling_factor).transpose(0, 1).unsqueeze(0);
        pipeline.decode(&latents)
    }
}

/// What is read of a clip: its caption, or the empty one.
fn caption<'a>(sample: &'a Sample, drop: &bool) -> &'a str {
    if *drop { "" } else { &sample.caption }
}
