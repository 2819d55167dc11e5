use std::fs;

use animatediff::train::folder::{RunFolder, file_stem};
use tempfile::tempdir;

use crate::child;

#[test]
fn a_run_gets_a_stamped_folder_with_its_parts() {
    let dir = tempdir().unwrap();
    let run = RunFolder::create(&dir.path().join("outputs"), "motion").unwrap();
    let name = run.root().file_name().unwrap().to_str().unwrap();
    let stamp: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(stamp.starts_with("motion-0000-00-00T00-00-00"), "{name}");
    for part in [run.tensorboard(), run.sanity_check(), run.samples(), run.checkpoints(), run.export()] {
        assert!(part.is_dir(), "{}", part.display());
    }
    let second = RunFolder::create(&dir.path().join("outputs"), "motion").unwrap();
    assert_ne!(run.root(), second.root());
}

#[test]
fn two_processes_cannot_write_one_run() {
    if let Some(dir) = child::folder() {
        let message = RunFolder::open(&dir).unwrap_err().to_string();
        assert!(message.contains("another process is writing here (pid "), "{message}");
        return;
    }
    let dir = tempdir().unwrap();
    let run = RunFolder::create(dir.path(), "x").unwrap();
    assert!(RunFolder::open(run.root()).unwrap_err().to_string().contains("no config.yaml in it"));
    fs::write(run.config(), "a: 1").unwrap();
    let root = run.root().to_owned();
    assert!(child::spawn("folder::two_processes_cannot_write_one_run", &root).wait().unwrap().success());
    drop(run);
    RunFolder::open(&root).unwrap();
}

#[test]
fn debug_is_wiped_but_not_while_in_use_and_not_through_a_link() {
    let dir = tempdir().unwrap();
    let run = RunFolder::debug(dir.path()).unwrap();
    fs::write(run.samples().join("old.gif"), "x").unwrap();
    assert!(RunFolder::debug(dir.path()).is_err());
    assert!(run.samples().join("old.gif").exists());
    drop(run);
    let run = RunFolder::debug(dir.path()).unwrap();
    assert_eq!(fs::read_dir(run.samples()).unwrap().count(), 0);

    let other = tempdir().unwrap();
    fs::create_dir(other.path().join("precious")).unwrap();
    std::os::unix::fs::symlink(other.path().join("precious"), other.path().join("debug")).unwrap();
    assert!(RunFolder::debug(other.path()).unwrap_err().to_string().contains("this is a link"));
}

#[test]
fn an_impossible_place_is_refused_at_once() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("outputs"), "a file").unwrap();
    let message = format!("{:#}", RunFolder::create(&dir.path().join("outputs"), "x").unwrap_err());
    assert!(message.contains("outputs: cannot create the folder"), "{message}");
    assert!(RunFolder::create(dir.path(), "../x").is_err());
}

#[test]
fn captions_make_safe_file_names() {
    let long = "A drone view, of celebration: with Christmas tree/fireworks at (night) under a starry sky";
    assert_eq!(file_stem(long, "0-0"), "A-drone-view-of-celebration-with-Christmas-treefireworks-at-night");
    assert_eq!(file_stem("../../etc/passwd", "0-0"), "etcpasswd");
    assert_eq!(file_stem(" -- \n", "0-1"), "0-1");
    assert_eq!(file_stem("猫が走る", "0-2"), "0-2");
    assert!(file_stem(&"x".repeat(500), "").len() <= 100);
}
