//! What `train vae` trains: pictures through the VAE and back, and latents near the unit normal.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Config, draws::Draws, pixels, recipe::Recipe, trainer::Weights};
use crate::{
    assemble::Base,
    data::Sample,
    frame::Frame,
    model::vae::{Posterior, Vae},
    sample::reconstruct,
};

/// The objective of `train vae`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Objective {
    /// How a reconstruction is compared with its picture.
    pub reconstruction: Reconstruction,
    /// Weight of the KL divergence from the unit normal, both taken per value: 1e-6 as in latent diffusion.
    pub kl_weight: f64,
    /// Sets `scaling_factor` anew when the run ends, so that latents have a standard deviation of 1. For a VAE from
    /// nothing; one that a UNet was trained on has to keep its factor.
    pub rescale: bool,
}

/// A distance of pictures, mean over all values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconstruction {
    /// Mean absolute error, as in latent diffusion: keeps edges.
    #[default]
    L1,
    /// Mean squared error: what PSNR counts.
    L2,
}

impl Default for Objective {
    fn default() -> Objective {
        Objective { reconstruction: Reconstruction::L1, kl_weight: 1e-6, rescale: false }
    }
}

/// The VAE in training.
#[derive(Debug)]
pub struct Autoencoder {
    vae: Vae,
    objective: Objective,
    device: Device,
    kind: Kind,
}

impl Autoencoder {
    /// The VAE of `base`, trained as `recipe` says, and its tensors.
    pub fn new(
        config: &Config,
        recipe: &Recipe,
        base: &Base,
        device: Device,
        kind: Kind,
    ) -> Result<(Autoencoder, Weights)> {
        let (vae, store) = base.trained_vae(recipe.plan.clone(), device, Kind::Float)?;
        let named = |tensors: BTreeMap<String, Tensor>| {
            tensors.into_iter().map(|(name, tensor)| (format!("vae.{name}"), tensor)).collect()
        };
        let weights = Weights { trained: named(store.trained), frozen: named(store.frozen) };
        Ok((Autoencoder { vae, objective: config.vae.clone(), device, kind }, weights))
    }

    /// The network.
    pub fn vae(&self) -> &Vae {
        &self.vae
    }

    /// Reconstruction and weighted KL divergence of the samples' pictures.
    pub fn loss(&self, samples: &[Sample], draws: &Draws) -> Tensor {
        let pictures = pixels::batch(samples, self.device);
        let posterior = self.vae.encode(&pictures.to_kind(self.kind));
        let (mean, logvar) = (posterior.mean.to_kind(Kind::Float), posterior.logvar.to_kind(Kind::Float));
        let posterior = Posterior { mean, logvar };
        let latents = posterior.sample(&draws.posterior.flatten(0, 1).view_as(&posterior.mean));
        let error = self.vae.decode(&latents.to_kind(self.kind)).to_kind(Kind::Float) - pictures;
        let Posterior { mean, logvar } = posterior;
        let error = match self.objective.reconstruction {
            Reconstruction::L1 => error.abs().mean(Kind::Float),
            Reconstruction::L2 => error.square().mean(Kind::Float),
        };
        let kl = (mean.square() + logvar.exp() - 1.0 - logvar).mean(Kind::Float) * 0.5;
        error + kl * self.objective.kl_weight
    }

    /// The samples' first frames, and what the VAE makes of them.
    pub fn reconstruct(&self, samples: &[Sample]) -> Vec<(Frame, Frame)> {
        let pair = |sample: &Sample| {
            let picture = pixels::frames(sample).swap_remove(0);
            let again = reconstruct(&self.vae, &picture, self.device);
            (picture, again)
        };
        samples.iter().map(pair).collect()
    }

    /// 1 over the standard deviation of the samples' latents.
    pub fn scaling_factor(&self, samples: &[Sample]) -> f64 {
        no_grad(|| {
            let latents = samples
                .iter()
                .map(|sample| self.vae.encode(&pixels::batch(std::slice::from_ref(sample), self.device)).mean);
            1.0 / Tensor::cat(&latents.collect::<Vec<_>>(), 0).std(false).double_value(&[])
        })
    }
}
