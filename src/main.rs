//! The `animatediff` program: parse, run, say what went wrong, exit.

use std::process::ExitCode;

use clap::Parser;

use animatediff::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::log_to_stderr();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
