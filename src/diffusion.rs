//! The arithmetic of diffusion: noise schedules, the training objective, samplers and guidance.
//!
//! A sampler is given a closure that predicts; it never sees a network.

pub mod ddim;
pub mod guidance;
pub mod objective;
pub mod schedule;

pub use ddim::Ddim;
pub use guidance::guided;
pub use objective::{Weighting, add_noise, loss};
pub use schedule::{BetaSchedule, Config, NoiseSchedule, PredictionType, Process, TimestepSpacing};
