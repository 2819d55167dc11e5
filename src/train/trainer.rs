//! One update: pixels and captions in, loss and gradient norm out.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    Config,
    autoencoder::Autoencoder,
    checkpoint::Groups,
    denoiser::Denoiser,
    draws::Draws,
    lr,
    optim::AdamW,
    recipe::{Recipe, Stage},
};
use crate::{
    assemble::Base,
    data::Sample,
    model::{unet::motion, vae::Vae},
};

/// The networks of a run, and its optimizer.
pub struct Trainer {
    network: Network,
    /// All tensors of the networks that the stage is about; trained and frozen.
    pub weights: Weights,
    /// AdamW over [`Weights::trained`].
    pub optimizer: AdamW,
    /// The tensors of [`Weights::trained`], in its order.
    trained: Vec<Tensor>,
    lr: lr::Schedule,
    config: Config,
    frames: i64,
    device: Device,
    kind: Kind,
    step: i64,
}

/// What is trained, with its loss.
#[derive(Debug)]
pub enum Network {
    /// A UNet, for all stages of diffusion.
    Denoiser(Box<Denoiser>),
    /// A VAE.
    Autoencoder(Box<Autoencoder>),
}

/// Tensors by name: `unet.…` and `text_encoder.…`, or `vae.…`.
pub struct Weights {
    /// Updated by the optimizer, float32.
    pub trained: BTreeMap<String, Tensor>,
    /// Never updated.
    pub frozen: BTreeMap<String, Tensor>,
}

/// What a trainer needs to go on where another one left off; all else follows from the configuration and the step.
#[derive(Debug)]
pub struct State {
    /// Updates done.
    pub step: i64,
    /// Groups of named tensors: `trained`, `optimizer`, and what else an option adds. A checkpoint has a file for each.
    pub groups: Groups,
    /// What is no tensor, by name.
    pub values: Map<String, Value>,
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
        let (network, weights) = if recipe.stage == Stage::Vae {
            let (autoencoder, weights) = Autoencoder::new(config, recipe, base, device, kind)?;
            (Network::Autoencoder(Box::new(autoencoder)), weights)
        } else {
            let (denoiser, weights) = Denoiser::new(config, recipe, base, device, kind)?;
            (Network::Denoiser(Box::new(denoiser)), weights)
        };
        Ok(Trainer {
            network,
            optimizer: AdamW::new(&weights.trained, config.adam()),
            trained: weights.trained.values().map(Tensor::shallow_clone).collect(),
            weights,
            lr: config.lr_schedule(steps),
            config: config.clone(),
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

    /// What is trained.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The motion module's architecture, where there is one.
    pub fn architecture(&self) -> Option<&motion::Config> {
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.architecture.as_ref(),
            Network::Autoencoder(_) => None,
        }
    }

    /// One update on `samples`, in as many passes as the batch size makes of them. Nothing is updated when the loss or a
    /// gradient is not finite: that is the error. `stop` is asked between passes; an update that it ends is none at all.
    pub fn update(&mut self, samples: &[Sample], stop: impl Fn() -> bool) -> Result<Option<StepReport>> {
        let draws = self.draws(samples, self.step);
        self.optimizer.zero_grad();
        let Some(loss) =
            self.accumulate(samples, &draws, |samples, draws, share| self.backward(samples, draws, share), stop)
        else {
            return Ok(None);
        };
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

    /// The loss on `samples` with the random numbers of the update after `step` updates, without updating.
    pub fn evaluate(&self, samples: &[Sample], step: i64) -> f64 {
        let loss = |samples: &[Sample], draws: &Draws, share: f64| self.loss(samples, draws, share);
        no_grad(|| self.accumulate(samples, &self.draws(samples, step), loss, || false)).expect("nothing stops it")
    }

    /// What goes into a checkpoint. The tensors are shared: the next update changes them.
    pub fn state(&self) -> State {
        let detached = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach());
        let trained = self.weights.trained.iter().map(detached).collect();
        let groups = [("trained".to_owned(), trained), ("optimizer".to_owned(), self.optimizer.state())].into();
        State { step: self.step, groups, values: Map::new() }
    }

    /// Takes up where [`Trainer::state`] left off.
    ///
    /// # Errors
    /// Names the group or the tensor that is missing, of another shape, or that this trainer has no use for.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        let group = |name: &str| state.groups.get(name).with_context(|| format!("it has no `{name}`"));
        let (trained, moments) = (group("trained")?, group("optimizer")?);
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
        self.step = state.step;
        Ok(())
    }

    /// Mean over all passes of what `pass` gives for its clips and its share of the loss. None when `stop` ended it early.
    fn accumulate(
        &self,
        samples: &[Sample],
        draws: &Draws,
        pass: impl Fn(&[Sample], &Draws, f64) -> f64,
        stop: impl Fn() -> bool,
    ) -> Option<f64> {
        let batch = self.config.train_batch_size;
        let loss = |(index, chunk): (usize, &[Sample])| {
            let share = chunk.len() as f64 / samples.len() as f64;
            let loss = pass(chunk, &draws.part(index * batch, chunk.len(), self.device), share);
            (!stop()).then_some(loss)
        };
        samples.chunks(batch).enumerate().map(loss).sum()
    }

    /// `share` of the loss; its gradients are added to those of the trained tensors.
    fn backward(&self, samples: &[Sample], draws: &Draws, share: f64) -> f64 {
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.backward(samples, draws, share, &self.trained),
            Network::Autoencoder(autoencoder) => {
                let loss = autoencoder.loss(samples, draws) * share;
                loss.backward();
                loss.double_value(&[])
            }
        }
    }

    fn loss(&self, samples: &[Sample], draws: &Draws, share: f64) -> f64 {
        let loss = match &self.network {
            Network::Denoiser(denoiser) => denoiser.loss(samples, draws),
            Network::Autoencoder(autoencoder) => autoencoder.loss(samples, draws),
        };
        (loss * share).double_value(&[])
    }

    fn vae(&self) -> &Vae {
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.vae(),
            Network::Autoencoder(autoencoder) => autoencoder.vae(),
        }
    }

    fn draws(&self, samples: &[Sample], step: i64) -> Draws {
        let config = &self.config;
        let (vae, size) = (self.vae().config(), config.train_data.sample_size);
        let scale = vae.downscale();
        let shape = [
            samples.len() as i64,
            vae.latent_channels,
            self.frames,
            size.height as i64 / scale,
            size.width as i64 / scale,
        ];
        let dropout = if config.cfg_random_null_text { config.cfg_random_null_text_ratio } else { 0.0 };
        let timesteps = (config.noise_scheduler_kwargs.num_train_timesteps, config.timestep_bias());
        Draws::new(config.global_seed, step, shape, timesteps, dropout)
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
