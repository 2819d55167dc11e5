//! The `animatediff` program: parse, run, say what went wrong, exit.

use std::{panic, process::ExitCode};

use clap::Parser;

use animatediff::{
    cli::{self, Cli},
    native, panics,
};

fn main() -> ExitCode {
    // SAFETY: there are no threads but this one.
    unsafe { native::settle_memory() };
    let cli = Cli::parse();
    cli::log_to_stderr();
    panic::set_hook(Box::new(panics::remember));
    match panics::catch(|| cli::run(cli)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => cli::report(&error),
        Err(panicked) => cli::report(&panicked.into()),
    }
}
