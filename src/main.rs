//! The `animatediff` program: parse, run, say what went wrong, exit.

use std::{panic, process::ExitCode};

use clap::Parser;

use animatediff::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::log_to_stderr();
    panic::set_hook(Box::new(cli::report_panic));
    match panic::catch_unwind(|| cli::run(cli)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => cli::report(&error),
        Err(_) => ExitCode::FAILURE,
    }
}
