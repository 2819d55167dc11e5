//! Training: three stages, whole-UNet fine-tuning and the VAE, one loop. A recipe is data; the loop never asks which stage it runs.
//!
//! [`config`] is what users write, [`recipe`] what it means for the networks, [`trainer`] the step, with [`denoiser`]
//! or [`autoencoder`] for its loss and [`encode`] for what comes before the UNet ([`caching`] keeps that), [`run`] the loop with
//! its files. What a run looks like on a terminal is the caller's: it is told through [`run::Observer`].

pub mod autoencoder;
pub mod bad_step;
pub mod board;
pub mod caching;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod denoiser;
pub mod draws;
pub mod ema;
pub mod encode;
pub mod export;
pub mod folder;
pub mod gradients;
mod identity;
pub mod interrupt;
pub mod latents;
pub mod lr;
pub mod memory;
pub mod metrics;
pub mod optim;
mod outputs;
pub mod pixels;
pub mod preview;
pub mod recipe;
pub mod resume;
pub mod run;
pub mod scaler;
pub mod timestep_bias;
pub mod trainer;

pub use config::Config;
pub use recipe::Stage;

/// What a run was asked for and cannot do: a configuration, a place or a checkpoint that does not serve, in the user's words.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Refused(pub(crate) anyhow::Error);
