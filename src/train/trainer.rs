//! One update: pixels and captions in, loss and gradient norm out.

use std::{collections::BTreeMap, rc::Rc};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use super::{
    Config,
    autoencoder::Autoencoder,
    checkpoint::Groups,
    denoiser::Denoiser,
    draws::Draws,
    ema::{Ema, Swapped},
    encode::Encoders,
    gradients::Gradients,
    lr,
    optim::AdamW,
    pixels,
    recipe::{Recipe, Stage},
    scaler::LossScaler,
};
use crate::{
    assemble::Base,
    data::Sample,
    dist::{Comm, DistError},
    frame::Frame,
    model::{unet::motion, vae::Vae},
};

// What a state's groups and values are called.
const EMA: &str = "ema";
const SCALER: &str = "loss_scale";
const BAD_STEPS: &str = "bad_steps";
const UPDATED: &str = "updated";

/// The networks of a run, and its optimizer.
pub struct Trainer {
    network: Network,
    /// All tensors of the networks that the stage is about; trained and frozen.
    pub weights: Weights,
    /// AdamW over [`Weights::trained`].
    pub optimizer: AdamW,
    /// Of [`Weights::trained`], in its order.
    gradients: Gradients,
    comm: Rc<Comm>,
    ema: Option<Ema>,
    /// With float16 only.
    scaler: Option<LossScaler>,
    /// Steps in a row that had to be skipped.
    bad_steps: usize,
    /// The step in which the last update was made.
    updated: i64,
    /// Cleared while an update is being made.
    whole: bool,
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

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was made.
    Updated,
    /// The scaled loss of float16 was too large for its gradients; it is smaller from now on. Happens, and means nothing.
    Overflow,
    /// The loss or a gradient is not finite.
    Skipped,
}

/// What an update was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Updates done, this one included, and those that were skipped.
    pub step: i64,
    /// Loss before the update, mean over its clips.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Whether anything was updated.
    pub outcome: Outcome,
}

impl Trainer {
    /// Builds the networks of `recipe` on `base`, to be trained together with the other processes of `comm`; the initialisation of
    /// new weights depends on the seed alone.
    pub fn new(
        config: &Config,
        recipe: &Recipe,
        base: &Base,
        steps: i64,
        device: Device,
        comm: Rc<Comm>,
    ) -> Result<Trainer> {
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
            gradients: Gradients::new(weights.trained.values().map(Tensor::shallow_clone).collect(), &comm),
            comm,
            ema: config.use_ema.then(|| Ema::new(&weights.trained, config.ema)),
            scaler: (kind == Kind::Half).then(LossScaler::default),
            bad_steps: 0,
            updated: 0,
            whole: true,
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

    /// Whether a frozen VAE is where it computes.
    pub fn keeps_vae(&self) -> bool {
        matches!(&self.network, Network::Denoiser(_)) && self.config.train_data.cache.is_none()
    }

    /// The motion module's architecture, where there is one.
    pub fn architecture(&self) -> Option<&motion::Config> {
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.architecture.as_ref(),
            Network::Autoencoder(_) => None,
        }
    }

    /// One update on `samples` and those of the other processes, in as many passes as the batch size makes of them. When the loss or
    /// a gradient is not finite, nothing is updated, and the step is over. `stop` is asked between passes; an update that it ends is
    /// none at all.
    ///
    /// # Errors
    /// When another process is gone; nothing was updated then.
    pub fn update(&mut self, samples: &[Sample], stop: impl Fn() -> bool) -> Result<Option<StepReport>> {
        let draws = self.draws(samples, self.step);
        let scale = self.scaler.map_or(1.0, |scaler| scaler.scale());
        self.gradients.begin();
        let backward = |pass: Pass| self.backward(Pass { share: pass.share * scale, ..pass });
        let Some(scaled) = self.accumulate(samples, &draws, backward, stop) else { return Ok(None) };
        self.gradients.finish()?;
        let loss = self.comm.sum(scaled)? / scale;
        let grad_norm = self.optimizer.unscale_and_clip(scale, self.config.max_grad_norm);
        let lr = self.lr.lr(self.config.base_lr(), self.step);
        let outcome = self.judge(loss, grad_norm);
        if outcome == Outcome::Updated {
            self.whole = false;
            self.optimizer.step(lr);
            if let Some(ema) = &mut self.ema {
                ema.update(&self.weights.trained);
            }
            self.whole = true;
        }
        self.step += 1;
        if outcome == Outcome::Updated {
            self.updated = self.step;
        }
        Ok(Some(StepReport { step: self.step, loss, grad_norm, lr, outcome }))
    }

    /// Whether to update, and what is to be learnt from it for the next time.
    fn judge(&mut self, loss: f64, grad_norm: f64) -> Outcome {
        let finite = loss.is_finite() && grad_norm.is_finite();
        let excused = loss.is_finite() && self.scaler.is_some_and(|scaler| scaler.may_overflow());
        if let Some(scaler) = &mut self.scaler {
            scaler.learn(loss, grad_norm);
        }
        let outcome = match (finite, excused) {
            (true, _) => Outcome::Updated,
            (false, true) => Outcome::Overflow,
            (false, false) => Outcome::Skipped,
        };
        self.bad_steps = match outcome {
            Outcome::Updated => 0,
            Outcome::Overflow => self.bad_steps,
            Outcome::Skipped => self.bad_steps + 1,
        };
        outcome
    }

    /// Whether no update broke off half-way: only then is there a state worth keeping.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Steps in a row that had to be skipped.
    pub fn bad_steps(&self) -> usize {
        self.bad_steps
    }

    /// The step in which the last update was made: later ones were skipped.
    pub fn updated(&self) -> i64 {
        self.updated
    }

    /// Puts the averages in the place of what is trained, where there are any, as long as the guard lives.
    pub fn averages(&self) -> Option<Swapped<'_>> {
        self.ema.as_ref().map(|ema| ema.in_place_of(&self.weights.trained))
    }

    /// The loss on `samples` and those of the other processes with the random numbers of the update after `step` updates, without
    /// updating.
    pub fn evaluate(&self, samples: &[Sample], step: i64) -> Result<f64, DistError> {
        let own = no_grad(|| self.accumulate(samples, &self.draws(samples, step), |pass| self.loss(&pass), || false));
        self.comm.sum(own.expect("nothing stops it"))
    }

    /// Takes over what rank 0 has: weights, moments, averages, step.
    pub fn share(&mut self) -> Result<()> {
        let State { step, groups, values } = self.state();
        groups.values().flat_map(BTreeMap::values).try_for_each(|tensor| self.comm.broadcast(tensor))?;
        let (step, values) = self.comm.decide(|| Ok((step, values)))?;
        self.step = step;
        self.restore_values(&values);
        Ok(())
    }

    /// Whether all processes have the same weights and moments.
    pub fn check_equal(&self) -> Result<(), DistError> {
        if self.comm.world() == 1 {
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        for tensor in self.state().groups.values().flat_map(BTreeMap::values) {
            let tensor = tensor.to_device(Device::Cpu).contiguous().flatten(0, -1).view_dtype(Kind::Uint8);
            hasher.update(&Vec::<u8>::try_from(tensor).expect("bytes"));
        }
        let what = format!("the weights or moments after step {}", self.step);
        let mend = "a GPU or the network computes wrong; go on with --resume from the checkpoint before";
        self.comm.check_equal(&what, hasher.finalize().as_bytes(), mend)
    }

    /// What may encode clips ahead, if that is asked for: on a GPU unless the configuration says otherwise.
    pub fn encoders(&self) -> Option<Encoders> {
        let wanted = self.config.encode_ahead.unwrap_or(self.device.is_cuda());
        match &self.network {
            Network::Denoiser(denoiser) if wanted && self.config.train_data.cache.is_none() => denoiser.encoders(),
            _ => None,
        }
    }

    /// What a sample shows.
    pub fn frames(&self, sample: &Sample) -> Vec<Frame> {
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.frames(sample),
            Network::Autoencoder(_) => pixels::frames(sample),
        }
    }

    /// What goes into a checkpoint. The tensors are shared: the next update changes them.
    pub fn state(&self) -> State {
        let detached = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach());
        let trained = self.weights.trained.iter().map(detached).collect();
        let mut groups: Groups =
            [("trained".to_owned(), trained), ("optimizer".to_owned(), self.optimizer.state())].into();
        let counts = [(BAD_STEPS, self.bad_steps.into()), (UPDATED, self.updated.into())];
        let mut values = Map::from_iter(counts.map(|(key, value): (_, Value)| (key.to_owned(), value)));
        if let Some(ema) = &self.ema {
            groups.insert(EMA.to_owned(), ema.state());
            values.insert(EMA.to_owned(), ema.updates().into());
        }
        if let Some(scaler) = self.scaler {
            values.insert(SCALER.to_owned(), json!([scaler.scale(), scaler.since()]));
        }
        State { step: self.step, groups, values }
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
        if let Some(ema) = &mut self.ema {
            let (Some(averages), Some(_)) = (state.groups.get(EMA), state.values.get(EMA).and_then(Value::as_i64))
            else {
                bail!("it has no averages (`{EMA}`): the run was started without `use_ema`");
            };
            if let Err(name) = ema.load_state(averages) {
                bail!("the checkpoint lacks the average of `{name}`");
            }
        }
        self.step = state.step;
        self.restore_values(&state.values);
        Ok(())
    }

    /// What options add to a state and is no tensor.
    fn restore_values(&mut self, values: &Map<String, Value>) {
        self.bad_steps = values.get(BAD_STEPS).and_then(Value::as_u64).unwrap_or(0) as usize;
        // Checkpoints from before this was counted have none.
        let updated = values.get(UPDATED).and_then(Value::as_i64);
        self.updated = updated.unwrap_or(self.step - self.bad_steps as i64);
        if let (Some(ema), Some(updates)) = (&mut self.ema, values.get(EMA).and_then(Value::as_i64)) {
            ema.set_updates(updates);
        }
        if self.scaler.is_some() {
            // A run that was in another precision before starts with a scale of its own.
            let saved = values.get(SCALER).and_then(|saved| Some((saved.get(0)?.as_f64()?, saved.get(1)?.as_i64()?)));
            self.scaler =
                Some(saved.map_or_else(LossScaler::default, |(scale, since)| LossScaler::from_state(scale, since)));
        }
    }

    /// Sum over all passes of what `body` gives for them. None when `stop` ended it early.
    fn accumulate(
        &self,
        samples: &[Sample],
        draws: &Draws,
        body: impl Fn(Pass) -> f64,
        stop: impl Fn() -> bool,
    ) -> Option<f64> {
        let batch = self.config.train_batch_size;
        let all = (samples.len() * self.comm.world()) as f64;
        let chunks = samples.chunks(batch);
        let passes = chunks.len();
        let loss = |(index, chunk): (usize, &[Sample])| {
            let draws = draws.part(index * batch, chunk.len(), self.device);
            let loss =
                body(Pass { samples: chunk, draws, share: chunk.len() as f64 / all, is_last: index + 1 == passes });
            (!stop()).then_some(loss)
        };
        chunks.enumerate().map(loss).sum()
    }

    /// The pass's share of the loss; its gradients are added to those of the trained tensors.
    fn backward(&self, pass: Pass) -> f64 {
        let Pass { samples, draws, share, is_last } = pass;
        if is_last {
            self.gradients.last_pass();
        }
        match &self.network {
            Network::Denoiser(denoiser) => denoiser.backward(samples, &draws, share, &self.gradients),
            Network::Autoencoder(autoencoder) => {
                let loss = autoencoder.loss(samples, &draws) * share;
                loss.backward();
                loss.double_value(&[])
            }
        }
    }

    fn loss(&self, pass: &Pass) -> f64 {
        let loss = match &self.network {
            Network::Denoiser(denoiser) => denoiser.loss(pass.samples, &pass.draws),
            Network::Autoencoder(autoencoder) => autoencoder.loss(pass.samples, &pass.draws),
        };
        (loss * pass.share).double_value(&[])
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
            (samples.len() * self.comm.world()) as i64,
            vae.latent_channels,
            self.frames,
            size.height as i64 / scale,
            size.width as i64 / scale,
        ];
        let dropout = if config.cfg_random_null_text { config.cfg_random_null_text_ratio } else { 0.0 };
        let timesteps = (config.noise_scheduler_kwargs.num_train_timesteps, config.timestep_bias());
        let all = Draws::new(config.global_seed, step, shape, timesteps, dropout, config.noise_offset);
        all.dealt(self.comm.rank(), self.comm.world())
    }
}

/// One forward and backward pass of an update.
struct Pass<'a> {
    samples: &'a [Sample],
    draws: Draws,
    /// Of these clips in the mean over all of the update.
    share: f64,
    is_last: bool,
}

/// bf16 on CUDA where mixed precision is on; whatever `precision` says where it says something.
fn training_kind(config: &Config, device: Device) -> Kind {
    use crate::device::Precision;
    match config.precision {
        Precision::Auto if !config.mixed_precision_training => Kind::Float,
        precision => precision.kind(device),
    }
}
