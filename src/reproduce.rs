//! The recipe's claims, each trained and measured in the world of [`shapes`](crate::data::shapes), from a small base.
//!
//! A [`Claim`] is an experiment with numbers and targets. It asks a [`Lab`] for what it needs: sets of clips, trainings,
//! samples. The lab keeps the result of each of these steps in a folder named by its inputs (configuration, hashes of
//! weights, seeds), so that a later call, or another claim, takes up what is there, and a change repeats only what depends
//! on it. Numbers are measured anew from the kept samples each time. What has to be repeated for how long is the
//! [`Budget`]; hyper-parameters are YAML files that `train` reads as well.
//!
//! Writes below the output folder: `steps/` (results), `runs/` (trainings under way), and the [`report`]. Nothing here
//! prints: a [`Watcher`] is told.

pub mod budget;
pub mod claims;
mod digest;
pub mod exam;
pub mod finding;
pub mod gallery;
pub mod lab;
pub mod measure;
pub mod report;
pub mod sampling;
mod sets;
pub mod strip;
mod subjects;
mod training;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

pub use self::{
    budget::Budget,
    claims::Claim,
    finding::Finding,
    lab::{Interrupted, Lab, Watcher},
    report::Report,
};
use crate::device::DeviceChoice;

/// What to reproduce, from what, and where to put it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The base model's folder.
    pub base: PathBuf,
    /// The folder of `adapter.yaml`, `motion.yaml`, `motionlora.yaml` and `style.yaml`.
    pub configs: PathBuf,
    /// Where everything goes.
    pub out: PathBuf,
    /// Seeds 0 to this number are run.
    pub seeds: u64,
    /// Which claims, in this order.
    pub claims: Vec<Claim>,
    /// How much of everything.
    pub budget: Budget,
    /// Where to compute.
    pub device: DeviceChoice,
}

/// Runs the claims, seed by seed; the report is written anew after each. Gives its table in Markdown.
///
/// # Errors
/// [`Interrupted`] after a signal; the next call goes on from there. Otherwise whatever a step could not do.
pub fn run(settings: &Settings, watcher: &mut dyn Watcher) -> Result<String> {
    let mut lab = Lab::open(settings, watcher)?;
    let mut report = Report::new(&lab)?;
    for seed in 0..settings.seeds {
        lab.start_seed(seed);
        for claim in &settings.claims {
            let finding = claim.examine(&mut lab)?;
            report.add(*claim, finding);
            report.write(&lab)?;
        }
    }
    Ok(report.markdown(&lab))
}

/// The name of `value`, as the command line has it.
fn named(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
