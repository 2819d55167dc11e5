//! Clips and tables that are damaged: each is read or refused in words, soon, and nothing is kept of it.
//!
//! `scripts/torture_files.sh` runs the same on ten thousand files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use animatediff::clip::Clip;
use animatediff::data::{Config, Dataset, Size, check};
use animatediff::frame::Frame;

use crate::child;
use crate::weights::hostile::mutate::{Random, damaged};

/// Files that are damaged unless `ANIMATEDIFF_HOSTILE_FILES` says otherwise; one in four is a table.
const FILES: usize = 240;
/// Longest that one file may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Most that the process may grow by after the first quarter of the files, in bytes.
const LARGEST_GROWTH: usize = 48 << 20;

const TABLES: [&str; 3] = [
    "videoid,contentUrl,duration,page_dir,name\n21,http://x/a.mp4,PT1S,003,\"A dog, running\"\n7,,,,A cat\n",
    "caption,video\nA dog,sub/a.mkv\n\"A \"\"cat\"\", asleep\",b.mp4\n",
    "name,contentUrl\nA cat,https://host/videos/004/preview/big-cat.mp4?x=/1\nA dog,https://host/dog.mp4\n",
];

#[test]
fn damaged_clips_are_read_or_refused_soon_and_nothing_leaks() {
    if let Some(dir) = child::folder() {
        return read_all(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut process =
        child::spawn("hostile_clips::damaged_clips_are_read_or_refused_soon_and_nothing_leaks", dir.path());
    let (mut last, mut since) = (String::new(), Instant::now());
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        let now = fs::read_to_string(dir.path().join("progress")).unwrap_or_default();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > LONGEST + Duration::from_secs(20) {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.is_none_or(|status| !status.success()) {
        drop(process.kill());
        panic!("{status:?} (`None`: a file took too long) at file {last}; it is in {}", dir.keep().display());
    }
}

fn read_all(dir: &Path) {
    let files = std::env::var("ANIMATEDIFF_HOSTILE_FILES").map_or(FILES, |text| text.parse().unwrap());
    let seeds = seeds(dir);
    let all: Vec<&[u8]> = seeds.iter().map(|(_, bytes)| &bytes[..]).collect();
    let sets: Vec<Dataset> = seeds.iter().map(|(extension, _)| set(dir, extension)).collect();
    let (mut random, mut outcomes) = (Random::new(), BTreeMap::<String, usize>::new());
    let (mut slowest, mut early, mut sizes) = (Duration::ZERO, 0, Vec::new());
    for file in 0..files {
        fs::write(dir.join("progress"), file.to_string()).unwrap();
        let started = Instant::now();
        let outcome = if file % 4 == 3 {
            let tables = TABLES.map(str::as_bytes);
            table(dir, &damaged(random.of(&tables), random.of(&tables), &mut random))
        } else {
            let number = random.below(seeds.len());
            let bytes = damaged(all[number], random.of(&all), &mut random);
            clip(dir, seeds[number].0, &sets[number], &bytes)
        };
        slowest = slowest.max(started.elapsed());
        assert!(started.elapsed() < LONGEST, "file {file}: {:?}", started.elapsed());
        *outcomes.entry(outcome).or_default() += 1;
        if file % (files / 10).max(1) == 0 {
            sizes.push(memory() >> 20);
        }
        if file == files / 4 {
            early = memory();
        }
    }
    let grown = memory().saturating_sub(early);
    eprintln!("{files} damaged files: {outcomes:?}; slowest {slowest:?}; resident MiB on the way {sizes:?}");
    assert!(grown < LARGEST_GROWTH, "the process grew by {grown} bytes: {sizes:?} MiB");
    assert!(!outcomes.keys().any(|outcome| outcome.contains("decoder gave up")), "a panic: {outcomes:?}");
    let read = |what: &str| outcomes.get(what).copied().unwrap_or(0);
    assert!(read("clip read") * 20 > files && read("table read") * 50 > files, "damage comes too early: {outcomes:?}");
}

/// Whole clips of several kinds, by their extension.
fn seeds(dir: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let picture = |frame: usize| {
        let mut picture = Frame::filled(64, 48, [0; 3]);
        let pixels = picture.rgb.chunks_mut(3).enumerate();
        pixels.for_each(|(at, rgb)| rgb.copy_from_slice(&[(at * 3) as u8, (at / 64 * 5) as u8, (frame * 20) as u8]));
        picture
    };
    let clip = Clip { frames: (0..10).map(picture).collect(), fps: 8.0 };
    let mut seeds = Vec::new();
    for extension in ["mp4", "gif"] {
        let path = dir.join(format!("seed.{extension}"));
        clip.save(&path).unwrap();
        seeds.push((extension, fs::read(path).unwrap()));
    }
    for name in ["open_gop.mp4", "interlaced.mp4", "slices.mp4", "pyramid.mp4"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clips").join(name);
        seeds.push(("mp4", fs::read(path).unwrap()));
    }
    seeds
}

/// A set of one clip, `input` with that extension.
fn set(dir: &Path, extension: &str) -> Dataset {
    let path = dir.join(format!("{extension}.csv"));
    fs::write(&path, format!("video,caption\ninput.{extension},a clip\n")).unwrap();
    let config = Config {
        csv_path: Some(path),
        sample_size: Size::square(32),
        sample_n_frames: 4,
        sample_stride: 1,
        ..Config::default()
    };
    Dataset::open(&config).unwrap()
}

/// Reads the frames that training would, and then all of them.
fn clip(dir: &Path, extension: &str, set: &Dataset, bytes: &[u8]) -> String {
    replace(&dir.join(format!("input.{extension}")), bytes);
    let sample = set.try_decode(0, 0, false);
    let (finding, _) = check::examine(set, 0);
    if let Err(failure) = &sample {
        assert!(failure.to_string().contains(&*dir.to_string_lossy()), "the message names no file: {failure}");
    }
    match (sample, finding.failure) {
        (Ok(_), None) => "clip read".into(),
        (Ok(_), Some(failure)) => format!("clip read in part, {}", failure.cause()),
        (Err(failure), _) => format!("clip: {}", failure.cause()),
    }
}

fn table(dir: &Path, bytes: &[u8]) -> String {
    let path = dir.join("table.csv");
    replace(&path, bytes);
    let config = Config { csv_path: Some(path), video_folder: Some(dir.to_path_buf()), ..Config::default() };
    match Dataset::open(&config) {
        Ok(set) => {
            for item in 0..set.len().min(100) {
                assert!(!set.path(item).as_os_str().is_empty() && !set.id(item).is_empty());
            }
            "table read".into()
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("table.csv") && message.len() < 2000, "{message}");
            "table refused".into()
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    // Some file systems wait for the disk where a file is overwritten, and not where it is made.
    drop(fs::remove_file(path));
    fs::write(path, bytes).unwrap();
}

/// Resident memory of this process, in bytes.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
