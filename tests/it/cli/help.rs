//! The examples in the help of every command run as they are printed there.

use std::os::unix::fs::symlink;

use animatediff::cli::Cli;
use clap::{Command, CommandFactory};

use super::support::{Desk, shared};

/// The lines below `Examples:`, as one script.
fn examples(help: &str) -> String {
    let (_, rest) = help.split_once("\nExamples:\n").expect("no examples");
    let lines: Vec<&str> = rest.lines().take_while(|line| line.starts_with("  ")).collect();
    assert!(lines.iter().any(|line| line.starts_with("  animatediff ")), "{help}");
    lines.join("\n")
}

fn run_examples(command: &str) {
    let desk = Desk::new();
    symlink(&shared()["CONFIGS"], desk.path("configs")).unwrap();
    let script = examples(&desk.ok(&format!("animatediff {command} --help")));
    assert!(command.is_empty() || script.contains(&format!("animatediff {command}")), "{script}");
    assert!(script.lines().all(|line| line.len() < 80), "the lines break on a narrow terminal:\n{script}");
    desk.ok(&script);
}

macro_rules! examples_of {
    ($($test:ident: $command:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            run_examples($command);
        })*

        #[test]
        fn no_command_is_left_out() {
            let mut commands = vec![(String::new(), Cli::command())];
            while let Some((name, command)) = commands.pop() {
                assert!([$($command),*].contains(&name.as_str()), "`{name}` is not tested here");
                let below = |part: &Command| (format!("{name} {}", part.get_name()).trim().to_owned(), part.clone());
                commands.extend(command.get_subcommands().map(below));
            }
        }
    };
}

examples_of! {
    the_program: "",
    train: "train",
    train_adapter: "train adapter",
    train_motion: "train motion",
    train_motionlora: "train motionlora",
    train_image: "train image",
    train_vae: "train vae",
    sample: "sample",
    eval: "eval",
    eval_shapes: "eval shapes",
    eval_camera: "eval camera",
    reproduce: "reproduce",
    init: "init",
    data: "data",
    data_shapes: "data shapes",
    data_augment: "data augment",
    data_index: "data index",
    data_check: "data check",
    data_cache: "data cache",
    convert: "convert",
    inspect: "inspect",
    bench: "bench",
    bench_sample: "bench sample",
    bench_train_motion: "bench train-motion",
    bench_vae_decode: "bench vae-decode",
    bench_startup: "bench startup",
    bench_data: "bench data",
    doctor: "doctor",
}
