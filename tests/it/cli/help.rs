//! The examples in the help of every command run as they are printed there.

use std::os::unix::fs::symlink;

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
            let tested = [$($command),*];
            let mut open = vec![String::new()];
            while let Some(command) = open.pop() {
                assert!(tested.contains(&command.as_str()), "`{command}` is not tested here");
                let help = Desk::new().ok(&format!("animatediff {command} --help"));
                let Some((_, rest)) = help.split_once("\nCommands:\n") else { continue };
                let names = rest.lines().take_while(|line| line.starts_with("  "));
                let names = names.filter(|line| !line.starts_with("   ")).map(|line| line.trim().split(' ').next().unwrap());
                open.extend(names.filter(|name| *name != "help").map(|name| format!("{command} {name}").trim().to_owned()));
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
    sample: "sample",
    init: "init",
    data: "data",
    data_shapes: "data shapes",
    data_augment: "data augment",
    inspect: "inspect",
    doctor: "doctor",
}
