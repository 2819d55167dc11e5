//! `--nproc`, and who this process is among those that were started together.

use std::{env, ffi::OsString, num::NonZeroUsize, process::ExitCode, time::Duration};

use anyhow::Result;

use super::{progress::say, usage};
use crate::dist::{Comm, Place, launch};

/// How many processes there should be.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Ranks {
    /// Start N processes on this machine, one for each GPU (or, on the CPU, each with its share of the cores), that work together.
    /// Not for torchrun, srun or a PyTorchJob, which start them themselves
    #[arg(long, value_name = "N")]
    nproc: Option<NonZeroUsize>,
}

impl Ranks {
    /// Starts the processes and waits for them, where that is asked for.
    pub fn launch(self) -> Result<Option<ExitCode>> {
        let Some(world) = self.nproc else { return Ok(None) };
        if let Some(place) = Place::from_env().map_err(|error| usage(error.to_string()))? {
            return Err(usage(format!(
                "--nproc starts processes itself, and this one was started as rank {} of {}; remove --nproc",
                place.rank, place.world
            )));
        }
        let ended = launch::launch(world.get(), &without_nproc(env::args_os().skip(1)))?;
        ended.note.iter().for_each(|note| say(note));
        Ok(Some(ExitCode::from(ended.code)))
    }
}

/// The other processes, if this one was started with some.
pub fn join(timeout: Duration) -> Result<Comm> {
    launch::follow_launcher();
    match Place::from_env().map_err(|error| usage(error.to_string()))? {
        Some(place) => Ok(Comm::join(place, timeout)?),
        None => Ok(Comm::solo()),
    }
}

/// An error of process `rank` of `world`, with its number where there are several.
pub fn named(error: anyhow::Error, (rank, world): (usize, usize)) -> anyhow::Error {
    if world == 1 { error } else { error.context(format!("rank {rank} of {world}")) }
}

fn without_nproc(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--nproc") => drop(arguments.next()),
            Some(text) if text.starts_with("--nproc=") => {}
            _ => rest.push(argument),
        }
    }
    rest
}
