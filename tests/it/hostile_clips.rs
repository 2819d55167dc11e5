//! Clips, pictures, archives and tables that are damaged: each is read or refused in words, soon, and nothing is kept of it.
//!
//! `scripts/torture_files.sh` runs the same on ten thousand files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use animatediff::clip::Clip;
use animatediff::data::{Config, Dataset, Size, check, faults::Failure};
use animatediff::frame::Frame;

use crate::child;
use crate::weights::hostile::mutate::{Random, damaged};

/// Files that are damaged unless `ANIMATEDIFF_HOSTILE_FILES` says otherwise; of eight, four are clips, two tables, one a picture and
/// one an archive.
const FILES: usize = 240;
/// Longest that one file may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Most that the process may grow by after the first quarter of the files, in bytes.
const LARGEST_GROWTH: usize = 48 << 20;

/// Of so many files, more than one is to come through in spite of its damage.
const SHARES: [(&str, usize); 4] =
    [("clip read", 30), ("table read", 50), ("picture read", 200), ("archive read", 200)];

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
    let seeds = Seeds::of(dir);
    let (mut random, mut outcomes) = (Random::new(), BTreeMap::<String, usize>::new());
    let (mut slowest, mut early, mut sizes) = (Duration::ZERO, 0, Vec::new());
    for file in 0..files {
        fs::write(dir.join("progress"), file.to_string()).unwrap();
        let started = Instant::now();
        let outcome = seeds.damage_and_read(file, &mut random);
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
    let enough = if files >= FILES { &SHARES[..] } else { &[] };
    for &(what, share) in enough {
        assert!(read(what) * share > files, "{what}: damage comes too early: {outcomes:?}");
    }
}

/// A whole file and its extension.
type Seed = (&'static str, Vec<u8>);

/// Whole files, and the sets that they are read as.
struct Seeds<'a> {
    dir: &'a Path,
    clips: Vec<Seed>,
    clip_sets: Vec<Dataset>,
    pictures: Vec<Seed>,
    picture_sets: Vec<Dataset>,
    archives: Vec<Seed>,
    tables: Vec<Seed>,
}

impl Seeds<'_> {
    fn of(dir: &Path) -> Seeds<'_> {
        let (clips, pictures) = (clips(dir), pictures());
        let sets = |seeds: &[Seed], frames| seeds.iter().map(|(extension, _)| set(dir, extension, frames)).collect();
        Seeds {
            dir,
            clip_sets: sets(&clips, 4),
            picture_sets: sets(&pictures, 1),
            archives: vec![("tar", archive(&clips[0], &clips[1])), ("tar", archive(&clips[2], &clips[0]))],
            tables: TABLES.map(|text| ("csv", text.as_bytes().to_vec())).to_vec(),
            clips,
            pictures,
        }
    }

    /// Damages one file, number `file`, and reads it; says what came of it.
    fn damage_and_read(&self, file: usize, random: &mut Random) -> String {
        let mut one_of = |seeds: &[Seed]| {
            let (number, other) = (random.below(seeds.len()), random.below(seeds.len()));
            (number, damaged(&seeds[number].1, &seeds[other].1, random))
        };
        let item = |what: &str, seeds: &[Seed], sets: &[Dataset], (number, bytes): (usize, Vec<u8>)| {
            item(self.dir, what, seeds[number].0, &sets[number], &bytes)
        };
        match file % 8 {
            3 | 7 => table(self.dir, &one_of(&self.tables).1),
            5 => item("picture", &self.pictures, &self.picture_sets, one_of(&self.pictures)),
            1 => of_archive(self.dir, &one_of(&self.archives).1),
            _ => item("clip", &self.clips, &self.clip_sets, one_of(&self.clips)),
        }
    }
}

/// Whole pictures of several kinds.
fn pictures() -> Vec<Seed> {
    let picture = image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([x as u8 * 5, y as u8 * 6, (x * y) as u8]));
    let of = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    vec![
        ("png", of(image::ImageFormat::Png)),
        ("jpg", of(image::ImageFormat::Jpeg)),
        ("webp", of(image::ImageFormat::WebP)),
    ]
}

/// An archive of two clips, one with a caption as text and one with one in JSON.
fn archive(one: &Seed, other: &Seed) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    add(format!("a/0001.{}", one.0), &one.1);
    add("a/0001.txt".into(), b"a clip");
    add(format!("a/0002.{}", other.0), &other.1);
    add("a/0002.json".into(), br#"{"caption": "another clip"}"#);
    archive.into_inner().unwrap()
}

/// Whole clips of several kinds, by their extension.
fn clips(dir: &Path) -> Vec<Seed> {
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

/// A set of one clip of so many frames, `input` with that extension.
fn set(dir: &Path, extension: &str, sample_n_frames: usize) -> Dataset {
    let path = dir.join(format!("{extension}.csv"));
    fs::write(&path, format!("video,caption\ninput.{extension},a clip\n")).unwrap();
    Dataset::open(&Config { csv_path: Some(path), sample_n_frames, ..small() }).unwrap()
}

fn small() -> Config {
    Config { sample_size: Size::square(32), sample_stride: 1, ..Config::default() }
}

/// Reads the frames that training would, and then all of them.
fn item(dir: &Path, what: &str, extension: &str, set: &Dataset, bytes: &[u8]) -> String {
    replace(&dir.join(format!("input.{extension}")), bytes);
    let sample = set.try_decode(0, 0, false);
    let (finding, _) = check::examine(set, 0);
    if let Err(failure) = &sample {
        assert!(failure.to_string().contains(&*dir.to_string_lossy()), "the message names no file: {failure}");
    }
    match (sample, finding.failure) {
        (Ok(_), None) => format!("{what} read"),
        (Ok(_), Some(failure)) => format!("{what} read in part, {}", failure.cause()),
        (Err(failure), _) => format!("{what}: {}", failure.cause()),
    }
}

/// Opens an archive, and reads what is found in it.
fn of_archive(dir: &Path, bytes: &[u8]) -> String {
    let path = dir.join("input.tar");
    replace(&path, bytes);
    let config = Config { shards: vec![path.to_str().unwrap().into()], sample_n_frames: 4, ..small() };
    let set = match Dataset::open(&config) {
        Ok(set) => set,
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("input.tar") && message.len() < 2000, "{message}");
            return "archive refused".into();
        }
    };
    let read = |item: usize| match check::examine(&set, item).0.failure {
        Some(failure) => {
            assert!(failure.to_string().contains("input.tar"), "the message names no archive: {failure}");
            assert!(!matches!(failure, Failure::Panic { .. }), "{failure}");
            false
        }
        None => true,
    };
    let readable = (0..set.len()).filter(|item| read(*item)).count();
    if readable > 0 { "archive read".into() } else { "archive opened, no clip read".into() }
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
