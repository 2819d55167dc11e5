//! The command line: one file per subcommand. The only part of the program that prints: results to standard output,
//! progress and logs to standard error.

mod bench;
mod clips;
mod convert;
pub mod data;
mod doctor;
mod eval;
mod hub;
mod init;
mod inspect;
mod progress;
mod ranks;
mod reproduce;
mod sample;
mod train;

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    assemble::AssembleError, convert as convert_order, data::DataError, panics::Panicked, tokenizer::TokenizerError,
    train::Refused, video::VideoError, weights::WeightsError, yaml::YamlError,
};

/// Trains and samples AnimateDiff: domain adapter, motion module and MotionLoRA
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train one of the three stages, or the image model
    Train(train::Args),
    /// Make animations from prompts
    Sample(Box<sample::Args>),
    /// Measure what models make
    Eval(eval::Args),
    /// Train and measure every claim of the recipe, in a small world
    Reproduce(reproduce::Args),
    /// Write a randomly initialised base model, to try things without a download
    Init(init::Args),
    /// Make small training sets, and get large ones ready
    Data(data::Args),
    /// Write weights in another tool's format, or merged into one another
    Convert(convert::Args),
    /// Say what a weight file holds
    Inspect(inspect::Args),
    /// Measure the speed of this build on this machine, on random weights
    Bench(bench::Args),
    /// Say what this machine and this build can do
    Doctor(doctor::Args),
}

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff data shapes shapes/
  animatediff train motion --base base/ --videos shapes/videos \\
      --caption 'a shape' --set train_data.sample_size=64 \\
      --set train_data.sample_stride=1 --set is_debug=true --max-steps 2
  animatediff sample --base base/ --prompt 'a red circle moving left' \\
      --motion outputs/debug/export/motion_module.safetensors --steps 5 \\
      -o circle.gif";

/// Bad usage, configuration or input, in the user's words: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// An error of usage.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// An error of usage, of one that only its caller knows to be the user's.
pub(crate) fn as_usage(error: anyhow::Error) -> anyhow::Error {
    usage(format!("{error:#}"))
}

/// Runs the command; the code is what the process ends with.
pub fn run(cli: Cli) -> Result<ExitCode> {
    hub::show_downloads();
    match cli.command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(*args),
        Command::Eval(args) => eval::run(args).map(|()| ExitCode::SUCCESS),
        Command::Reproduce(args) => reproduce::run(args),
        Command::Init(args) => init::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(args) => data::run(&args),
        Command::Convert(args) => convert::run(args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Logs go to standard error, through the progress bars. `RUST_LOG` chooses the level; warnings are always shown.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let format = tracing_subscriber::fmt::layer()
        .with_writer(progress::writer)
        .with_ansi(stderr().is_terminal())
        .without_time()
        .with_target(false);
    tracing_subscriber::registry().with(filter).with(format).init();
}

/// Prints an error with its causes; 2 when the user's input is at fault, else 1.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Panicked>().is_some_and(Panicked::is_broken_pipe) {
        return ExitCode::FAILURE;
    }
    eprintln!("error: {error:#}");
    ExitCode::from(if is_input(error) { 2 } else { 1 })
}

fn is_input(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<YamlError>()
            || cause.is::<AssembleError>()
            || cause.is::<WeightsError>()
            || cause.is::<TokenizerError>()
            || cause.downcast_ref::<DataError>().is_some_and(|error| !matches!(error, DataError::Threads(_)))
            || cause.is::<Refused>()
            || cause.is::<convert_order::Refused>()
            || cause.downcast_ref::<VideoError>().is_some_and(|error| !matches!(error, VideoError::Write { .. }))
    })
}
