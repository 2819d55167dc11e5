//! Files that are damaged, or made to do harm: every reader refuses them in words, soon and in little memory.
//!
//! The seeds are the files of `tests/fuzz/corpus`; `corpus` makes them, `mutate` damages them. `tests/fuzz` has the same for
//! `cargo fuzz`.

mod corpus;
pub mod mutate;
#[path = "../../fuzz/targets.rs"]
pub mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::{Random, damaged, rewritten};

use super::pickle::fixture;
use crate::{child, support};

/// Damaged files per folder of the corpus.
const FILES: usize = 5000;
/// Longest that one file may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest that all of them may take; usual are seconds.
const LONGEST_RUN: Duration = Duration::from_secs(180);
/// Most memory that all of them together may add to the process's peak.
const LARGEST_GROWTH: usize = 256 << 20;

/// One in so many damaged files is accepted still, or the damage no longer reaches the later stages.
const ACCEPTED: usize = 100;

/// Reads bytes as one kind of file; says whether they were accepted.
type Read = fn(&Path, &[u8]) -> bool;

/// Folders of the corpus.
const TARGETS: [(&str, Read); 4] = [
    ("safetensors", targets::safetensors),
    ("pickle", targets::pickle),
    ("archive", targets::archive),
    ("index", targets::index),
];

/// In a process of its own: its peak of memory is measured, and a stack that overflows ends it.
#[test]
fn damaged_files_are_refused_in_little_time_and_memory() {
    if let Some(dir) = child::folder() {
        return read_all(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "weights::hostile::damaged_files_are_refused_in_little_time_and_memory";
    let (started, mut process) = (Instant::now(), child::spawn(name, dir.path()));
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > LONGEST_RUN => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.is_none_or(|status| !status.success()) {
        drop(process.kill());
        panic!("{status:?} (`None`: it took too long); the last file written in {} did it", dir.keep().display());
    }
}

fn read_all(dir: &Path) {
    support::one_thread();
    // What libtorch takes for itself is taken for the first tensors.
    assert!(targets::safetensors(dir, &fixture("views.safetensors")));
    let before = peak_memory();
    for (name, read) in TARGETS {
        let dir = dir.join(name);
        fs::create_dir(&dir).unwrap();
        read_damaged(name, |what, bytes| watched(what, before, || read(&dir, bytes)));
    }
}

/// Has `read` read the files of a folder of the corpus, and then damaged ones; most of those were whole.
fn read_damaged(name: &str, read: impl Fn(&str, &[u8]) -> bool) {
    let seeds = seeds(name);
    let all: Vec<&[u8]> = seeds.iter().map(|(_, bytes)| &bytes[..]).collect();
    let is_whole = |seed: &&(PathBuf, Vec<u8>)| read(&seed.0.display().to_string(), &seed.1);
    let whole: Vec<&[u8]> = seeds.iter().filter(is_whole).map(|(_, bytes)| &bytes[..]).collect();
    let (mut random, mut accepted) = (Random::new(), 0);
    for file in 0..FILES {
        let damage = if name == "safetensors" && random.below(2) == 0 { rewritten } else { damaged };
        let sources = if random.below(4) == 0 { &all } else { &whole };
        let bytes = damage(random.of(sources), random.of(&all), &mut random);
        accepted += usize::from(read(&format!("{name}, file {file}"), &bytes));
    }
    assert!(accepted * ACCEPTED > FILES, "{name}: only {accepted} of {FILES} damaged files were accepted");
}

/// The result of `read`, if it took neither long nor much.
fn watched(what: &str, before: usize, read: impl FnOnce() -> bool) -> bool {
    let started = Instant::now();
    let accepted = read();
    assert!(started.elapsed() < LONGEST, "{what}: {:?}", started.elapsed());
    let growth = peak_memory() - before;
    assert!(growth < LARGEST_GROWTH, "{what}: the peak of memory is {growth} bytes higher");
    accepted
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The files of a folder of the corpus, sorted by name.
fn seeds(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(corpus::folder().join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}
