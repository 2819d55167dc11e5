//! Lists of clips, their order, the choice of frames, pixels, the loader, and the clips that the program makes itself.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use animatediff::clip::Clip;
use animatediff::data::augment::{self, Extent, Motion};
use animatediff::data::shapes::{Scene, Shape, Split, Style};
use animatediff::data::{Config, DataError, Dataset, Loader, Sample, ShortClips, Size, choice, order, pixels, shapes};
use animatediff::data::{faults::Failure, picture};
use animatediff::frame::Frame;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::cli::support::Desk;
use crate::video::{counting, folder};

/// A set of `clips` folders of 6 frames each, whose colour tells the clip and whose brightness the frame.
fn set(clips: usize) -> (TempDir, Config) {
    let folder = folder();
    for clip in 0..clips {
        let frames = (0..6).map(|frame| Frame::filled(8, 8, [clip as u8, 0, 40 * frame])).collect();
        Clip { frames, fps: 8.0 }.save(&folder.path().join(format!("clip{clip}"))).unwrap();
    }
    let config = Config {
        videos: Some(folder.path().to_path_buf()),
        caption: Some("a clip".into()),
        sample_size: Size::square(4),
        sample_stride: 2,
        sample_n_frames: 2,
        prefetch: 5,
        ..Config::default()
    };
    (folder, config)
}

fn table(folder: &Path, text: &str) -> Config {
    let csv_path = folder.join("clips.csv");
    fs::write(&csv_path, text).unwrap();
    Config { csv_path: Some(csv_path), video_folder: Some(folder.to_path_buf()), ..Config::default() }
}

fn refusal(config: &Config) -> String {
    Dataset::open(config).expect_err("this has to be refused").to_string()
}

fn paths_and_captions(dataset: &Dataset, root: &Path) -> Vec<(String, String)> {
    (0..dataset.len())
        .map(|item| {
            let path = dataset.path(item);
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            (path, dataset.caption(item).to_string())
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(path, caption)| (path.to_string(), caption.to_string())).collect()
}

// Configuration.

#[test]
fn the_official_keys_load_and_sizes_take_both_forms() {
    let yaml = "{csv_path: a.csv, video_folder: b, sample_size: 256, sample_stride: 4, sample_n_frames: 16}";
    let config: Config = serde_yaml::from_str(yaml).unwrap();
    assert_eq!(config, Config { csv_path: Some("a.csv".into()), video_folder: Some("b".into()), ..Config::default() });
    let config: Config = serde_yaml::from_str("{sample_size: [256, 384], short_clips: denser}").unwrap();
    assert_eq!((config.sample_size, config.short_clips), (Size { height: 256, width: 384 }, ShortClips::Denser));
    let again: Config = serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    for wrong in ["sample_size: wide", "sample_size: [1, 2, 3]"] {
        let error = serde_yaml::from_str::<Config>(wrong).unwrap_err().to_string();
        assert!(error.contains("one whole number such as 256, or [height, width]"), "{error}");
    }
}

#[test]
fn contradictions_are_refused_with_the_key() {
    let csv = || Config { csv_path: Some("a.csv".into()), ..Config::default() };
    let videos = || Config { videos: Some("b".into()), ..Config::default() };
    let cases = [
        (Config::default(), "set `csv_path` with `video_folder`, or `videos`"),
        (Config { videos: Some("b".into()), ..csv() }, "both `csv_path` and `videos`"),
        (Config { video_folder: Some("c".into()), ..videos() }, "`video_folder` goes with `csv_path`"),
        (Config { caption: Some("c".into()), ..csv() }, "`caption` goes with `videos`"),
        (Config { sample_n_frames: 0, ..videos() }, "`sample_n_frames` is 0"),
        (Config { sample_stride: 0, ..videos() }, "`sample_stride` is 0"),
        (Config { prefetch: 0, ..videos() }, "`prefetch` is 0"),
        (Config { max_unreadable: 5.0, ..videos() }, "`max_unreadable` is 5"),
        (Config { max_unreadable: f64::NAN, ..videos() }, "`max_unreadable` is NaN"),
    ];
    for (config, expected) in cases {
        let message = refusal(&config);
        assert!(message.contains(expected), "{message}");
    }
}

// Lists of clips.

#[test]
fn webvid_columns_name_files_by_their_id() {
    let folder = folder();
    let csv = "videoid,contentUrl,duration,page_dir,name\n21,http://x/a.mp4,PT1S,003,\"A dog, running\"\n7,,,,A cat\n";
    let config = table(folder.path(), csv);
    let dataset = Dataset::open(&config).unwrap();
    let expected = pairs(&[("21.mp4", "A dog, running"), ("7.mp4", "A cat")]);
    assert_eq!(paths_and_captions(&dataset, folder.path()), expected);
    assert_eq!(dataset.id(0), "21");
    fs::create_dir(folder.path().join("7")).unwrap();
    assert_eq!(dataset.path(1), folder.path().join("7"), "a folder of frames stands in for the video");
    let nowhere = Config { video_folder: None, ..config.clone() };
    assert!(refusal(&nowhere).contains("set `video_folder`"));
    let wrong = Config { video_folder: Some("/no/such".into()), ..config };
    assert_eq!(refusal(&wrong), "/no/such: no such folder; correct `video_folder`");
}

#[test]
fn other_columns_name_paths_or_addresses() {
    let folder = folder();
    let config = Config { video_folder: None, ..table(folder.path(), "caption,video\nA dog,sub/a.mkv\n") };
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(paths_and_captions(&dataset, folder.path()), pairs(&[("sub/a.mkv", "A dog")]));
    assert_eq!(dataset.id(0), "sub/a");
    let csv = "name,contentUrl\nA cat,https://host/videos/004/preview/big-cat.mp4?x=/1\n";
    let dataset = Dataset::open(&table(folder.path(), csv)).unwrap();
    assert_eq!(paths_and_captions(&dataset, folder.path()), pairs(&[("big-cat.mp4", "A cat")]));
}

#[test]
fn tables_that_cannot_be_used_say_where_and_why() {
    let folder = folder();
    let cases = [
        ("id,text\n1,A dog\n", "columns `id,text` found; needed are `videoid,name` (WebVid), or `video,caption`, or"),
        ("videoid,name\n", "no clips after it"),
        ("", "columns `` found"),
        ("videoid,name\n1,A dog\n2\n", "line 3: 1 fields, and the first line has 2"),
        ("videoid,name\n1,A dog, running\n", "line 2: 3 fields, and the first line has 2; put captions with commas"),
        ("videoid,name\n1,A dog\n,A cat\n", "line 3: column `videoid` is empty"),
        ("name,contentUrl\nA dog,http://host/\n", "line 2: column `contentUrl` is empty"),
    ];
    for (csv, expected) in cases {
        let message = refusal(&table(folder.path(), csv));
        assert!(message.contains("clips.csv") && message.contains(expected), "{message}");
    }
    fs::write(folder.path().join("latin.csv"), b"videoid,name\n1,caf\xe9\n").unwrap();
    let latin = Config { csv_path: Some(folder.path().join("latin.csv")), ..table(folder.path(), "") };
    assert!(refusal(&latin).contains("line 2: not UTF-8"));
    let missing = Config { csv_path: Some("/no/such.csv".into()), ..latin };
    assert!(refusal(&missing).contains("/no/such.csv: cannot be read"));
}

#[test]
fn folders_bring_captions_in_text_files() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for name in ["b10.mp4", "b9.mkv", "still.png", "table.json", ".hidden"] {
        write(name, "");
    }
    counting(2, 8.0).save(&folder.path().join("frames")).unwrap();
    fs::rename(folder.path().join("frames"), folder.path().join("frames.v2")).unwrap();
    write("b10.txt", "ten\n");
    write("b9.txt", " nine ");
    write("frames.v2.txt", "a folder");
    let config = Config { videos: Some(folder.path().into()), ..Config::default() };
    let expected = [("b9.mkv", "nine"), ("b10.mp4", "ten"), ("frames.v2", "a folder")];
    assert_eq!(paths_and_captions(&Dataset::open(&config).unwrap(), folder.path()), pairs(&expected));
    let pictures = Config { sample_n_frames: 1, ..config.clone() };
    let message = refusal(&pictures);
    assert!(
        message.contains("still.png: has no caption; write one to still.txt beside it, or set `caption`"),
        "{message}"
    );
    let pictures = Config { caption: Some("other".into()), ..pictures };
    let with_picture = [&expected[..], &[("still.png", "other")]].concat();
    assert_eq!(paths_and_captions(&Dataset::open(&pictures).unwrap(), folder.path()), pairs(&with_picture));
}

#[test]
fn folders_without_clips_say_so() {
    let folder = folder();
    let config = Config { videos: Some(folder.path().into()), ..Config::default() };
    assert!(refusal(&config).contains("holds no clips; put videos or folders of frames there"));
    fs::write(folder.path().join("a.png"), "").unwrap();
    assert!(refusal(&config).contains("its 1 pictures serve only with `sample_n_frames: 1`"));
    let missing = Config { videos: Some("/no/such".into()), ..config };
    assert_eq!(refusal(&missing), "/no/such: no such folder; correct `videos`");
}

#[test]
fn numbers_in_names_are_compared_by_value() {
    let mut names = ["f10", "f9", "f009b", "f1", "g", "f", "f01"];
    names.sort_by(|a, b| picture::natural(a, b));
    assert_eq!(names, ["f", "f01", "f1", "f9", "f009b", "f10", "g"]);
}

// Order.

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_epoch_brings_every_item_once(seed: u64, epoch in 0u64..1000, n in 1usize..700) {
        let first = epoch * n as u64;
        let seen: HashSet<usize> = (first..first + n as u64).map(|position| order::item(seed, position, n)).collect();
        prop_assert_eq!(seen.len(), n);
        prop_assert!(seen.iter().all(|item| *item < n));
    }

    #[test]
    fn spread_indices_stay_in_their_stretch(first in 0usize..5000, length in 1usize..500, count in 1usize..40) {
        let indices = choice::spread(first, first + length - 1, count);
        prop_assert_eq!(indices.len(), count);
        prop_assert_eq!(indices[0], first);
        prop_assert!(count == 1 || indices[count - 1] == first + length - 1);
        prop_assert!(indices.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn camera_moves_never_leave_the_picture(
        width in 2usize..900, height in 2usize..900, target_width in 2usize..300, target_height in 2usize..300,
        index: u64, time in 0.0f64..=1.0,
    ) {
        for motion in MOTIONS {
            let (source, target) = (Size { height, width }, Size { height: target_height, width: target_width });
            let crop = augment::crop(motion, Extent::draw(0, index), source, target, time);
            let (sin, cos) = crop.angle.sin_cos();
            let half = |a: f64, b: f64| (crop.width * a.abs() + crop.height * b.abs()) / 2.0;
            let (across, down, slack) = (half(cos, sin), half(sin, cos), 1e-3 * width.max(height) as f64);
            prop_assert!(crop.x - across >= -slack && crop.x + across <= width as f64 + slack, "{motion:?} {crop:?}");
            prop_assert!(crop.y - down >= -slack && crop.y + down <= height as f64 + slack, "{motion:?} {crop:?}");
            let aspect = target_width as f64 / target_height as f64;
            prop_assert!((crop.width / crop.height / aspect - 1.0).abs() < 1e-9);
        }
    }
}

const MOTIONS: [Motion; 8] = [
    Motion::ZoomIn,
    Motion::ZoomOut,
    Motion::PanLeft,
    Motion::PanRight,
    Motion::TiltUp,
    Motion::TiltDown,
    Motion::RollClockwise,
    Motion::RollAnticlockwise,
];

#[test]
fn large_sets_are_permuted_too() {
    let n = 1_000_003;
    let mut seen = vec![false; n];
    for position in 0..n as u64 {
        let item = order::item(1, position, n);
        assert!(!std::mem::replace(&mut seen[item], true), "item {item} comes twice");
    }
}

#[test]
fn orders_differ_by_epoch_and_seed_and_favour_nobody() {
    let order =
        |seed, epoch: u64| -> Vec<usize> { (epoch * 50..epoch * 50 + 50).map(|p| order::item(seed, p, 50)).collect() };
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(0, 0), order(1, 0));
    assert_ne!(order(0, 1), order(1, 0), "seed and epoch are not simply added");
    // All 6 orders of 3 items, equally often within five standard deviations of 1000 each.
    let mut counts = std::collections::HashMap::new();
    for epoch in 0..6000u64 {
        let order: Vec<usize> = (epoch * 3..epoch * 3 + 3).map(|p| order::item(9, p, 3)).collect();
        *counts.entry(order).or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| (count - 1000).abs() < 150), "{counts:?}");
}

/// Runs saved before an update have to go on with the same items: a change here breaks resuming.
#[test]
fn orders_and_draws_never_change() {
    let items: Vec<usize> = (0..8).map(|position| order::item(42, position, 1000)).collect();
    let mut random = choice::random(42, 7);
    let draws: Vec<u64> = (0..4).map(|_| choice::below(&mut random, 1000)).collect();
    assert_eq!((items, draws), (vec![38, 16, 33, 781, 640, 121, 863, 454], vec![272, 31, 305, 459]));
}

// Choice of frames.

#[test]
fn frames_are_spaced_by_the_stride_and_start_anywhere() {
    let config = Config { sample_n_frames: 4, sample_stride: 3, ..Config::default() };
    let mut starts = HashSet::new();
    for position in 0..200 {
        let choice = choice::choose(&config, 14, &mut choice::random(0, position)).unwrap();
        let start = choice.frames[0];
        assert_eq!(choice.frames, [start, start + 3, start + 6, start + 9]);
        assert!(!choice.flip, "mirroring is off unless asked for");
        starts.insert(start);
    }
    assert_eq!(starts, HashSet::from([0, 1, 2, 3, 4]), "first and last start are both possible");
}

#[test]
fn an_item_can_be_had_the_other_way_round() {
    let (folder, config) = set(3);
    Clip { frames: vec![gradient(8, 8); 6], fps: 8.0 }.save(&folder.path().join("clip1")).unwrap();
    let config = Config { horizontal_flip: true, sample_size: Size::square(8), ..config };
    let dataset = Dataset::open(&config).unwrap();
    for position in 0..6 {
        let (item, mut mirrored) =
            (dataset.decode(1, position).unwrap(), dataset.try_decode(1, position, true).unwrap());
        assert_eq!(dataset.try_decode(1, position, false).unwrap(), item);
        mirrored.pixels.chunks_mut(8).for_each(<[f32]>::reverse);
        assert_eq!(mirrored, item);
    }
}

#[test]
fn short_videos_are_refused_or_taken_denser() {
    let config = Config { sample_n_frames: 4, sample_stride: 3, ..Config::default() };
    assert_eq!(choice::choose(&config, 9, &mut choice::random(0, 0)).unwrap_err().needed, 10);
    assert_eq!(choice::choose(&config, 10, &mut choice::random(0, 0)).unwrap().frames, [0, 3, 6, 9]);
    let denser = Config { short_clips: ShortClips::Denser, ..config };
    let frames = |available| choice::choose(&denser, available, &mut choice::random(0, 0)).unwrap().frames;
    // numpy.linspace(0, n - 1, 4, dtype=int)
    assert_eq!(frames(9), [0, 2, 5, 8]);
    assert_eq!(frames(3), [0, 0, 1, 2]);
    assert_eq!(frames(1), [0, 0, 0, 0]);
    let pictures = Config { sample_n_frames: 1, ..Config::default() };
    let any: HashSet<usize> =
        (0..60).map(|p| choice::choose(&pictures, 3, &mut choice::random(0, p)).unwrap().frames[0]).collect();
    assert_eq!(any, HashSet::from([0, 1, 2]), "one frame, uniformly");
}

#[test]
fn half_of_the_clips_are_mirrored_when_asked_for() {
    let config = Config { horizontal_flip: true, sample_n_frames: 1, ..Config::default() };
    let flips = (0..1000).filter(|p| choice::choose(&config, 5, &mut choice::random(3, *p)).unwrap().flip).count();
    assert!((400..600).contains(&flips), "{flips}");
}

// Pixels.

fn gradient(width: usize, height: usize) -> Frame {
    let rgb = (0..width * height).flat_map(|at| [(at % width) as u8, (at / width) as u8, 7]).collect();
    Frame { width, height, rgb }
}

#[test]
fn pixels_of_the_right_size_are_only_scaled_to_minus_one_to_one() {
    let frame = gradient(4, 4);
    let pixels = pixels::pixels(&[frame.clone(), Frame::filled(4, 4, [0, 255, 0])], Size::square(4), false);
    assert_eq!(pixels.len(), 2 * 3 * 4 * 4);
    let at = |f: usize, c: usize, y: usize, x: usize| pixels[((f * 3 + c) * 4 + y) * 4 + x];
    assert_eq!(at(0, 0, 1, 3), (3.0f32 / 255.0 - 0.5) / 0.5);
    assert_eq!(at(0, 1, 2, 0), (2.0f32 / 255.0 - 0.5) / 0.5);
    assert_eq!((at(1, 0, 3, 3), at(1, 1, 0, 0), at(1, 2, 2, 2)), (-1.0, 1.0, -1.0));
}

#[test]
fn mirroring_swaps_left_and_right() {
    let plain = pixels::pixels(&[gradient(6, 4)], Size { height: 4, width: 6 }, false);
    let mirrored = pixels::pixels(&[gradient(6, 4)], Size { height: 4, width: 6 }, true);
    for (a, b) in plain.chunks(6).zip(mirrored.chunks(6)) {
        assert_eq!(a.iter().rev().collect::<Vec<_>>(), b.iter().collect::<Vec<_>>());
    }
}

#[test]
fn halving_weighs_neighbours_as_a_triangle_does() {
    // The filter for a factor of two weighs 1, 3, 3, 1 eighths, and is cut off at the border: 3, 3, 1 sevenths.
    let frame =
        Frame { width: 8, height: 8, rgb: [0, 80, 40, 200, 160, 240, 8, 88].map(|v| [v; 3]).concat().repeat(8) };
    let pixels = pixels::pixels(&[frame], Size::square(4), false);
    let byte = |x: usize| (pixels[x] * 0.5 + 0.5) * 255.0;
    let expected = [
        (3.0 * 0.0 + 3.0 * 80.0 + 40.0) / 7.0,
        (80.0 + 3.0 * 40.0 + 3.0 * 200.0 + 160.0) / 8.0,
        (200.0 + 3.0 * 160.0 + 3.0 * 240.0 + 8.0) / 8.0,
        (240.0 + 3.0 * 8.0 + 3.0 * 88.0) / 7.0,
    ];
    for (x, expected) in expected.into_iter().enumerate() {
        assert!((byte(x) - expected).abs() < 1e-3, "column {x}: {} and not {expected}", byte(x));
    }
}

#[test]
fn a_constant_picture_stays_constant_at_any_size() {
    for (width, height, size) in [(37, 23, 16), (23, 37, 16), (5, 9, 16), (640, 360, 64)] {
        let frame = Frame::filled(width, height, [51, 102, 204]);
        let pixels = pixels::pixels(&[frame], Size { height: size, width: size + 3 }, false);
        for (plane, byte) in pixels.chunks(size * (size + 3)).zip([51.0f32, 102.0, 204.0]) {
            let expected = (byte / 255.0 - 0.5) / 0.5;
            assert!(plane.iter().all(|value| (value - expected).abs() < 1e-5));
        }
    }
}

#[test]
fn crops_are_central_and_halves_round_to_even() {
    // 4 high stays; of the width, 5 and 7 columns more than needed: offsets 2.5 and 3.5 become 2 and 4.
    for (extra, offset) in [(5, 2), (7, 4), (4, 2), (1, 0), (3, 2)] {
        let pixels = pixels::pixels(&[gradient(4 + extra, 4)], Size::square(4), false);
        assert_eq!(((pixels[0] * 0.5 + 0.5) * 255.0).round(), offset as f32, "{extra} columns to crop");
    }
}

#[test]
fn scaled_sizes_are_torchvisions() {
    let size = |width, height, side| pixels::covering(width, height, Size::square(side));
    assert_eq!(size(596, 336, 256), Size { height: 256, width: 454 });
    assert_eq!(size(336, 596, 256), Size { height: 454, width: 256 });
    assert_eq!(size(1280, 720, 256), Size { height: 256, width: 455 });
    assert_eq!(size(300, 300, 256), Size::square(256));
    let wide = Size { height: 256, width: 384 };
    assert_eq!(pixels::covering(1000, 1000, wide), Size { height: 384, width: 384 });
    assert_eq!(pixels::covering(2000, 1000, wide), Size { height: 256, width: 512 });
    assert_eq!(pixels::covering(768, 512, wide), wide);
}

// Decoding and loading.

#[test]
fn an_item_is_what_its_frames_say() {
    let (_folder, config) = set(3);
    let dataset = Dataset::open(&config).unwrap();
    let sample = dataset.decode(5, 1).unwrap();
    assert_eq!((sample.position, sample.frames, sample.height, sample.width), (1, 2, 4, 4));
    assert_eq!(sample.caption, "a clip");
    let plane = |frame: usize, channel: usize| sample.pixels[(frame * 3 + channel) * 16];
    let byte = |value: f32| ((value * 0.5 + 0.5) * 255.0).round() as usize;
    assert_eq!(format!("clip{}", byte(plane(0, 0))), sample.id);
    assert_eq!(byte(plane(1, 2)) - byte(plane(0, 2)), 80, "two frames further");
}

#[test]
fn failures_name_their_cause() {
    let (folder, config) = set(1);
    let longer = Config { sample_n_frames: 4, ..config.clone() };
    let short = Dataset::open(&longer).unwrap().decode(0, 0).unwrap_err();
    assert!(matches!(short, Failure::TooShort { available: 6, needed: 7, .. }));
    let message = short.to_string();
    assert!(message.contains("clip0: 6 frames, and one item takes 7; lower `sample_stride`"), "{message}");
    let frame = folder.path().join("clip0").join("0001.png");
    let failure = |config: &Config| {
        let dataset = Dataset::open(config).unwrap();
        (0..40).find_map(|position| dataset.decode(0, position).err()).expect("frame 1 is used at some position")
    };
    Frame::filled(9, 8, [0; 3]).save_png(&frame).unwrap();
    let sizes = failure(&config);
    assert_eq!(sizes.cause(), "unusable frame folder");
    assert!(sizes.to_string().contains("make them one size"), "{sizes}");
    fs::write(&frame, "not a picture").unwrap();
    assert_eq!(failure(&config).cause(), "not a picture");
    let csv = table(folder.path(), "videoid,name\nmissing,A dog\n");
    assert_eq!(failure(&csv).cause(), "not found");
}

fn stream(dataset: &Arc<Dataset>, start: u64, threads: usize, count: usize) -> Vec<Sample> {
    Loader::new(dataset.clone(), 11, start, threads).unwrap().next_batch(count).unwrap()
}

#[test]
fn the_stream_depends_on_seed_and_position_alone() {
    let (_folder, config) = set(7);
    let dataset = Arc::new(Dataset::open(&config).unwrap());
    let whole = stream(&dataset, 0, 1, 40);
    assert_eq!(whole.iter().map(|sample| sample.position).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    assert!(whole.iter().all(|sample| *sample == dataset.decode(11, sample.position).unwrap()));
    assert!(stream(&dataset, 0, 4, 40) == whole, "four threads");
    assert!(stream(&dataset, 23, 3, 17) == whole[23..], "resumed at 23");
    let other = Arc::new(Dataset::open(&Config { prefetch: 1, ..config }).unwrap());
    assert!(stream(&other, 0, 4, 40) == whole, "a window of one");
    let mut loader = Loader::new(dataset, 11, 0, 4).unwrap();
    let batches: Vec<Sample> = [3, 1, 20, 16].into_iter().flat_map(|n| loader.next_batch(n).unwrap()).collect();
    assert!(batches == whole, "whatever the batches");
    assert_eq!(loader.position(), 40);
}

#[test]
fn processes_share_the_stream() {
    let (folder, config) = set(30);
    fs::remove_dir_all(folder.path().join("clip4")).unwrap();
    fs::create_dir(folder.path().join("clip4")).unwrap();
    fs::write(folder.path().join("clip4").join("0.png"), "damaged").unwrap();
    let dataset = Arc::new(Dataset::open(&config).unwrap());
    let whole = stream(&dataset, 6, 2, 60);
    for rank in 0..3 {
        let mut loader = Loader::sharded(dataset.clone(), 11, 6, 2, rank, 3).unwrap();
        let expected: Vec<&Sample> = whole.iter().skip(rank).step_by(3).collect();
        assert!(loader.next_batch(20).unwrap().iter().collect::<Vec<_>>() == expected, "process {rank} of 3");
    }
}

/// A set in which the clips of these numbers cannot be read.
fn broken(clips: usize, broken: &[usize]) -> (TempDir, Config) {
    let (folder, config) = set(clips);
    for clip in broken {
        let frames = folder.path().join(format!("clip{clip}"));
        for index in 0..6 {
            fs::write(frames.join(format!("{index:04}.png")), "damaged").unwrap();
        }
    }
    (folder, config)
}

#[test]
fn an_unreadable_item_is_replaced_by_the_next_readable_one() {
    let (_folder, config) = broken(40, &[3, 20]);
    let config = Config { max_unreadable: 0.1, ..config };
    let dataset = Arc::new(Dataset::open(&config).unwrap());
    let mut loader = Loader::new(dataset.clone(), 11, 0, 4).unwrap();
    let whole = loader.next_batch(120).unwrap();
    let mut replaced = 0;
    for sample in &whole {
        let by = (sample.position..).find(|position| dataset.decode(11, *position).is_ok()).unwrap();
        replaced += usize::from(by != sample.position);
        assert!(*sample == Sample { position: sample.position, ..dataset.decode(11, by).unwrap() });
    }
    assert_eq!(replaced, 6, "two clips in each of three epochs");
    assert!(stream(&dataset, 0, 1, 120) == whole, "one thread");
    let resumed = whole.iter().position(|s| dataset.decode(11, s.position).is_err()).unwrap();
    assert!(stream(&dataset, resumed as u64, 3, 9) == whole[resumed..resumed + 9], "resumed at a replaced item");
    let faults = loader.faults();
    assert_eq!((faults.tried(), faults.unreadable()), (40, 2), "each file counts once");
    let report = faults.to_string();
    assert!(report.starts_with("2 of 40 clips tried could not be read\n  not a picture: 2\n"), "{report}");
    assert!(report.contains("clip3/0") && report.contains("clip20/0"), "{report}");
}

#[test]
fn too_many_unreadable_files_end_the_run_at_the_same_item_every_time() {
    let numbers: Vec<usize> = (0..12).map(|i| i * 3).collect();
    let (_folder, config) = broken(40, &numbers);
    let dataset = Arc::new(Dataset::open(&config).unwrap());
    let ends: Vec<(u64, String)> = [1, 4]
        .into_iter()
        .map(|threads| {
            let mut loader = Loader::new(dataset.clone(), 11, 0, threads).unwrap();
            let error = (0..).find_map(|_| loader.next_batch(1).err()).unwrap();
            (loader.position(), error.to_string())
        })
        .collect();
    assert_eq!(ends[0], ends[1]);
    assert!((15..=20).contains(&ends[0].0), "not before 20 files were tried: {}", ends[0].0);
    assert!(ends[0].1.contains("of 20 clips cannot be read") && ends[0].1.contains("`max_unreadable` allows 5.0 %"));
    let patient = Dataset::open(&Config { max_unreadable: 0.5, ..config }).unwrap();
    assert_eq!(stream(&Arc::new(patient), 0, 2, 80).len(), 80);
}

#[test]
fn a_set_that_cannot_be_read_at_all_ends_the_run_soon() {
    let cases = [(3, "none of the 3 clips can be read"), (30, "the first 10 clips that were tried cannot be read")];
    for (clips, expected) in cases {
        let (_folder, config) = broken(clips, &(0..clips).collect::<Vec<_>>());
        let config = Config { max_unreadable: 1.0, ..config };
        let mut loader = Loader::new(Arc::new(Dataset::open(&config).unwrap()), 0, 0, 2).unwrap();
        match loader.next_batch(1).unwrap_err() {
            DataError::Unreadable { reason, faults } => {
                assert!(reason.contains(expected), "{reason}");
                assert_eq!(faults.tried(), clips.min(10));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn dropping_a_loader_stops_its_work() {
    let (_folder, config) = set(3);
    let dataset = Arc::new(Dataset::open(&Config { prefetch: 100_000, ..config }).unwrap());
    let mut loader = Loader::new(dataset.clone(), 0, 0, 2).unwrap();
    loader.next_batch(1).unwrap();
    let begun = std::time::Instant::now();
    drop(loader);
    // The threads give the dataset back once they are through: 100,000 items would take them minutes.
    while Arc::strong_count(&dataset) > 1 {
        assert!(begun.elapsed().as_secs() < 5, "the threads go on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

// Clips that the program makes.

fn centre_of(frame: &Frame, colour: [u8; 3]) -> (f64, f64, usize) {
    let near = |p: [u8; 3]| (0..3).all(|c| p[c].abs_diff(colour[c]) < 10);
    let (mut x_sum, mut y_sum, mut count) = (0, 0, 0);
    for y in 0..frame.height {
        for x in 0..frame.width {
            if near(frame.pixel(x, y)) {
                (x_sum, y_sum, count) = (x_sum + x, y_sum + y, count + 1);
            }
        }
    }
    (x_sum as f64 / count as f64, y_sum as f64 / count as f64, count)
}

#[test]
fn shapes_move_as_their_captions_say() {
    let mut seen = HashSet::new();
    for index in 0..60 {
        let scene = shapes::Scene::draw(1, index, shapes::Split::All);
        let clip = scene.render(shapes::Style::Flat, Size::square(48), 5, 8.0);
        assert_eq!(scene.render(shapes::Style::Flat, Size::square(48), 5, 8.0), clip);
        let colour = shapes::COLOURS[scene.colour].1;
        let (x0, y0, area0) = centre_of(&clip.frames[0], colour);
        let (x1, y1, area1) = centre_of(&clip.frames[4], colour);
        let motion = match (x1 - x0, y1 - y0) {
            (dx, _) if dx < -15.0 => "moving left",
            (dx, _) if dx > 15.0 => "moving right",
            (_, dy) if dy < -15.0 => "moving up",
            (_, dy) if dy > 15.0 => "moving down",
            _ if area1 > 2 * area0 => "growing",
            _ => "standing still",
        };
        let caption = scene.caption();
        assert!(caption.contains(motion), "{caption}: {motion}");
        assert!(caption.contains(&format!(
            "{} {}",
            shapes::COLOURS[scene.colour].0,
            format!("{:?}", scene.shape).to_lowercase()
        )));
        seen.insert(motion);
    }
    assert_eq!(seen.len(), 6, "every motion comes up in 60 clips");
    assert_ne!(shapes::Scene::draw(1, 0, shapes::Split::All), shapes::Scene::draw(2, 0, shapes::Split::All));
}

#[test]
fn a_sixth_of_the_combinations_is_held_out_evenly() {
    let mut held = Vec::new();
    let mut scene = Scene::draw(0, 0, Split::All);
    for (shape, motion) in Shape::ALL.into_iter().flat_map(|shape| shapes::Motion::ALL.map(|motion| (shape, motion))) {
        for colour in 0..shapes::COLOURS.len() {
            (scene.shape, scene.motion, scene.colour) = (shape, motion, colour);
            if scene.held_out() {
                held.push((shape, motion, colour));
            }
        }
    }
    assert_eq!(held.len(), 18);
    for index in 0..6 {
        assert_eq!(held.iter().filter(|(_, motion, _)| *motion == shapes::Motion::ALL[index]).count(), 3);
        assert_eq!(held.iter().filter(|(_, _, colour)| *colour == index).count(), 3);
        assert_eq!(held.iter().filter(|(shape, ..)| *shape == Shape::ALL[index % 3]).count(), 6);
    }
    for index in 0..200 {
        assert!(!Scene::draw(3, index, Split::Seen).held_out() && Scene::draw(3, index, Split::HeldOut).held_out());
    }
}

#[test]
fn stills_are_told_without_motion() {
    let mut places = HashSet::new();
    for index in 0..60 {
        let scene = Scene::still(5, index);
        let (caption, pose) = (scene.still_caption(), scene.pose(0.0));
        assert!(["moving", "growing", "still"].iter().all(|word| !caption.contains(word)), "{caption}");
        let place = match (pose.x - 0.5, pose.y - 0.5) {
            (dx, dy) if dx.abs().max(dy.abs()) < 0.1 => "in the middle",
            (dx, dy) if dx.abs() > dy.abs() => ["on the left", "on the right"][usize::from(dx > 0.0)],
            (_, dy) => ["high up", "low down"][usize::from(dy > 0.0)],
        };
        assert!(caption.contains(place), "{caption}");
        places.insert(place);
    }
    assert_eq!(places.len(), 5);
}

#[test]
fn a_base_of_stills_has_read_the_words_for_directions_and_none_for_motion() {
    let words =
        |texts: Vec<String>| texts.iter().flat_map(|text| text.split(' ')).map(String::from).collect::<HashSet<_>>();
    let motions = words(shapes::Motion::ALL.iter().map(|motion| motion.name().to_owned()).collect());
    let stills = words((0..200).map(|index| Scene::still(5, index).still_caption().replace(',', "")).collect());
    let mut common: Vec<&String> = motions.intersection(&stills).collect();
    common.sort();
    assert_eq!(common, ["down", "left", "right", "up"]);
    let all = shapes::words();
    assert!(motions.iter().chain(&stills).all(|word| all.contains(word)), "{all:?}");
}

#[test]
fn stills_are_seen_from_near_and_far_and_clips_from_one_distance() {
    let grounds = |scene: &dyn Fn(u64) -> Scene| (0..200).map(|index| scene(index).ground).collect::<Vec<_>>();
    let range = |values: Vec<f64>| values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let stills = grounds(&|index| Scene::still(1, index));
    let (far, near) = range(stills.iter().map(|ground| ground.scale).collect());
    assert!((0.7..0.75).contains(&far) && (1.7..=1.8).contains(&near), "{far} {near}");
    assert!((110..155).contains(&stills.iter().filter(|ground| ground.scale == 1.0).count()), "two of three");
    let (small, large) = range((0..200).map(|index| Scene::still(1, index).pose(0.0).radius).collect());
    assert!(small < 0.12 && large > 0.35, "{small} {large}");
    assert!((0..200).all(|index| Scene::vista(1, index).texture == shapes::Texture::Checkered));
    let vistas = grounds(&|index| Scene::vista(1, index));
    assert!(vistas.iter().all(|ground| ground.scale == 0.7 && ground.turn == 0.0), "as far as any still, and upright");
    let clips = grounds(&|index| Scene::draw(1, index, Split::All));
    assert!(clips.iter().all(|ground| ground.scale == 1.0));
    for grounds in [&stills, &clips] {
        let (left, right) = range(grounds.iter().map(|ground| ground.turn.to_degrees()).collect());
        assert!((-30.0..-25.0).contains(&left) && (25.0..30.0).contains(&right), "{left} {right}");
    }
    for grounds in [&stills, &clips, &vistas] {
        for shift in [|ground: &shapes::Ground| ground.shift.0, |ground: &shapes::Ground| ground.shift.1] {
            let (least, most) = range(grounds.iter().map(shift).collect());
            assert!((0.0..0.1).contains(&least) && (1.9..2.0).contains(&most), "{least} {most}");
        }
    }
}

#[test]
fn textures_lie_as_their_ground_says() {
    // A chequerboard's cells are a fifth of the side: a shift by one swaps the shades, by two it changes nothing.
    let frame = |texture, turn, scale, shift| {
        let ground = shapes::Ground { turn, scale, shift };
        let nothing = shapes::Pose { x: 0.9, y: 0.9, radius: 1e-9 };
        let scene = Scene { texture, ground, way: (nothing, nothing), ..Scene::still(1, 0) };
        scene.frame(Style::Flat, Size::square(60), 0.0)
    };
    let paint = |turn, scale, shift| {
        let frame = frame(shapes::Texture::Checkered, turn, scale, shift);
        // Two cells by two, up to the middle.
        (0..24 * 24).map(|at| frame.pixel(6 + at % 24, 6 + at / 24)[0]).collect::<Vec<_>>()
    };
    let shades = |levels: &[u8]| levels.iter().collect::<HashSet<_>>().len();
    let usual = paint(0.0, 1.0, (0.0, 0.0));
    assert_eq!(shades(&usual), 2);
    assert_eq!(paint(0.0, 1.0, (0.4, -0.4)), usual);
    assert!(paint(0.0, 1.0, (0.2, 0.0)).iter().zip(&usual).all(|(a, b)| a != b));
    assert_eq!(shades(&paint(0.0, 2.0, (0.0, 0.0))), 1, "one cell, twice as large");
    // The shift is the texture's own: by one cell it swaps the shades at any scale.
    assert!(paint(0.0, 2.0, (0.2, 0.0)).iter().zip(&paint(0.0, 2.0, (0.0, 0.0))).all(|(a, b)| a != b));
    // Stripes rise to the right; an eighth of a turn clockwise, and they lie level.
    let turned = frame(shapes::Texture::Striped, std::f64::consts::FRAC_PI_4, 1.0, (0.0, 0.0));
    assert!((0..60).all(|y| (0..59).all(|x| turned.pixel(x, y) == turned.pixel(x + 1, y))));
}

#[test]
fn every_third_still_leaves_its_place_out() {
    let folder = tempfile::tempdir().unwrap();
    data("shapes OUT/s --domain stills --clips 6 --size 16", folder.path()).unwrap();
    let table = std::fs::read_to_string(folder.path().join("s/clips.csv")).unwrap();
    assert_eq!(table.lines().count(), 7);
    for (index, row) in table.lines().skip(1).enumerate() {
        let scene = Scene::still(0, index as u64);
        let caption = if index % 3 == 2 { scene.brief_caption() } else { scene.still_caption() };
        assert!(row.contains(&caption), "{row}");
    }
    assert_eq!(Scene::still(0, 0).brief_caption().matches(',').count(), 0);
}

#[test]
fn the_veil_marks_softens_and_compresses() {
    let scene = Scene::draw(1, 4, Split::Seen);
    let clean = scene.render(Style::Flat, Size::square(64), 2, 8.0);
    let difference = |strength: f64| {
        let veiled = shapes::veil(&clean, strength);
        assert_eq!(veiled, shapes::veil(&clean, strength));
        let levels = veiled.frames[0].rgb.iter().zip(&clean.frames[0].rgb);
        levels.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / clean.frames[0].rgb.len() as f64
    };
    let (none, weak, strong) = (difference(0.0), difference(0.25), difference(0.5));
    assert!(none > 0.2 && weak > none + 1.0 && strong > weak + 1.0, "{none} {weak} {strong}");
    // The letters lie in the middle, seven cells of 32 high, and are as bright as their shadows are dark.
    let pattern = shapes::watermark(Size::square(64));
    let inked = |at: usize| pattern[at] != 0.0;
    let rows: HashSet<usize> = (0..64 * 64).filter(|at| inked(*at)).map(|at| at / 64).collect();
    assert!(rows.iter().all(|row| (24..41).contains(row)) && rows.len() > 12, "{rows:?}");
}

#[test]
fn styles_are_of_one_content() {
    let scene = Scene::still(2, 1);
    let pictures = [Style::Flat, Style::Outlines, Style::Night].map(|style| scene.frame(style, Size::square(64), 0.0));
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2] && pictures[0] != pictures[2]);
    // In the middle of a disc an outline shows a wash of its colour over what is behind, paler than the outline.
    let disc = Scene { shape: Shape::Circle, ..scene };
    let pose = disc.pose(0.0);
    let at = |style| disc.frame(style, Size::square(64), 0.0).pixel((pose.x * 64.0) as usize, (pose.y * 64.0) as usize);
    assert_eq!(at(Style::Flat), shapes::COLOURS[disc.colour].1);
    let light = |rgb: [u8; 3]| rgb.iter().map(|level| u32::from(*level)).sum::<u32>();
    let (washed, full) = (at(Style::Outlines), shapes::COLOURS[disc.colour].1);
    assert!((light(full) + 60..600).contains(&light(washed)), "{washed:?} of {full:?}");
}

#[test]
fn cameras_move_as_they_are_told() {
    // A white dot in the middle, and where it is seen at the first and at the last frame.
    let mut picture = Frame::filled(120, 120, [30; 3]);
    for y in 54..66 {
        for x in 54..66 {
            picture.rgb[3 * (y * 120 + x)..][..3].fill(250);
        }
    }
    let seen = |motion: Motion| {
        let clip = augment::film(&[picture.clone()], motion, Extent::draw(0, 0), Size::square(60), 5, 8.0);
        assert_eq!((clip.frames.len(), clip.size().unwrap()), (5, (60, 60)));
        let (x0, y0, area0) = centre_of(&clip.frames[0], [250; 3]);
        let (x1, y1, area1) = centre_of(&clip.frames[4], [250; 3]);
        (x1 - x0, y1 - y0, area1 as f64 / area0 as f64)
    };
    assert!(seen(Motion::ZoomIn).2 > 2.0);
    assert!(seen(Motion::ZoomOut).2 < 0.5);
    // A sixth to a third of what the crop shows, and no more over a longer picture.
    let slides = 10.0..20.0;
    assert!(slides.contains(&seen(Motion::PanLeft).0), "the camera goes left, the dot right");
    assert!(slides.contains(&-seen(Motion::PanRight).0));
    assert!(slides.contains(&seen(Motion::TiltUp).1));
    assert!(slides.contains(&-seen(Motion::TiltDown).1));
    let way = |motion: Motion, source: Size| {
        let [from, to] =
            [0.0, 1.0].map(|time| augment::crop(motion, Extent::draw(0, 0), source, Size::square(60), time));
        (to.x - from.x, to.y - from.y)
    };
    let (square, wide, high) = (Size::square(120), Size { width: 400, height: 120 }, Size { width: 120, height: 400 });
    for (motion, long) in [(Motion::PanRight, wide), (Motion::TiltDown, high)] {
        let ((x, y), (long_x, long_y)) = (way(motion, square), way(motion, long));
        assert!((x - long_x).abs() < 1e-9 && (y - long_y).abs() < 1e-9 && x + y > 15.0, "{motion:?}");
    }
}

#[test]
fn rolls_turn_the_picture_against_the_camera() {
    // The upper half is white: once the camera has turned clockwise, white shows more on its left than on its right.
    let mut picture = Frame::filled(90, 90, [0; 3]);
    picture.rgb[..3 * 90 * 45].fill(255);
    let tilt = |motion: Motion| {
        let clip = augment::film(&[picture.clone()], motion, Extent::draw(0, 0), Size::square(40), 3, 8.0);
        let white = |x: usize| (0..40).filter(|y| clip.frames[2].pixel(x, *y)[0] > 128).count() as i32;
        assert_eq!(clip.frames[1].pixel(20, 10), [255; 3]);
        white(0) - white(39)
    };
    assert!(tilt(Motion::RollClockwise) > 8, "{}", tilt(Motion::RollClockwise));
    assert!(tilt(Motion::RollAnticlockwise) < -8);
}

// The commands.

#[derive(clap::Parser)]
struct Program {
    #[command(flatten)]
    args: animatediff::cli::data::Args,
}

fn data(line: &str, folder: &Path) -> Result<(), String> {
    use clap::Parser as _;
    let words = line.replace("OUT", folder.to_str().unwrap());
    let program =
        Program::try_parse_from(std::iter::once("data").chain(words.split(' '))).map_err(|e| e.to_string())?;
    animatediff::cli::data::run(&program.args).map(drop).map_err(|error| format!("{error:#}"))
}

#[test]
fn shapes_make_a_set_that_loads() {
    let folder = folder();
    for format in ["", " --format frames --overwrite"] {
        data(&format!("shapes OUT/s --clips 3 --size 32 --frames 9{format}"), folder.path()).unwrap();
        let config = Config {
            csv_path: Some(folder.path().join("s/clips.csv")),
            video_folder: Some(folder.path().join("s/videos")),
            sample_size: Size::square(32),
            sample_stride: 4,
            sample_n_frames: 3,
            ..Config::default()
        };
        let dataset = Arc::new(Dataset::open(&config).unwrap());
        assert_eq!(dataset.len(), 3);
        assert_eq!(dataset.caption(1), shapes::Scene::draw(0, 1, shapes::Split::Seen).caption());
        let sample = &stream(&dataset, 0, 1, 1)[0];
        assert_eq!(sample.pixels.len(), 3 * 3 * 32 * 32);
    }
    data("shapes OUT/t --domain stills --style night --clips 2 --size 32", folder.path()).unwrap();
    let config = Config {
        csv_path: Some(folder.path().join("t/clips.csv")),
        sample_size: Size::square(32),
        sample_n_frames: 1,
        ..Config::default()
    };
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(dataset.caption(1), Scene::still(0, 1).still_caption());
    let picture = Scene::still(0, dataset.item_at(0, 0) as u64).frame(Style::Night, Size::square(32), 0.0);
    assert_eq!(dataset.decode(0, 0).unwrap().pixels, pixels::pixels(&[picture], Size::square(32), false));
    for (line, told) in [
        ("shapes OUT/u --veil 2", "--veil 2: give a strength from 0 to 1"),
        ("shapes OUT/u --domain vistas --split seen", "--split is of clips, and these are vistas"),
        ("shapes OUT/u --domain stills --split all", "--split is of clips, and these are stills"),
        ("shapes OUT/u --domain stills --format mp4", "--format is of clips"),
        ("shapes OUT/u --domain vistas --veil 0", "--veil is of clips, and these are vistas"),
        ("shapes OUT/u --domain stills --frames 4", "--frames is of clips"),
    ] {
        assert!(data(line, folder.path()).unwrap_err().contains(told), "{line}");
    }
    let again = data("shapes OUT/s", folder.path()).unwrap_err();
    assert!(again.contains("add --overwrite"), "{again}");
    fs::write(folder.path().join("s/mine.txt"), "").unwrap();
    let foreign = data("shapes OUT/s --overwrite", folder.path()).unwrap_err();
    assert!(foreign.contains("mine.txt is not of this command's making"), "{foreign}");
    assert!(folder.path().join("s/clips.csv").exists(), "nothing was removed");
}

#[test]
fn vistas_become_reference_clips_with_their_captions() {
    let folder = folder();
    data("shapes OUT/v --domain vistas --clips 2 --size 48", folder.path()).unwrap();
    let pictures = "OUT/v/vistas/00000.png OUT/v/vistas/00001.png";
    data(&format!("augment {pictures} --motion zoom-in -o OUT/z --size 32 --frames 4 --format frames"), folder.path())
        .unwrap();
    let config = Config { videos: Some(folder.path().join("z")), sample_n_frames: 2, ..Config::default() };
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(dataset.len(), 2);
    for index in 0..2 {
        let scene = Scene::vista(0, index);
        assert!(scene.caption().contains("standing still on a checkered"));
        assert_eq!(dataset.caption(index as usize), scene.caption());
    }
}

#[test]
fn eval_camera_tells_what_the_camera_does() {
    let desk = Desk::new();
    desk.ok("animatediff data shapes v --domain vistas --size 96 --clips 2 --seed 3");
    for (motion, measured) in
        [("zoom-in", "zoom"), ("pan-left", "right"), ("tilt-down", "down"), ("roll-clockwise", "degrees_clockwise")]
    {
        desk.ok(&format!(
            "animatediff data augment v/vistas/* --motion {motion} --frames 16 -o {motion} --format frames"
        ));
        let told = desk.ok(&format!("animatediff eval camera {motion}/* --motion {motion} --json"));
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let clips = told.as_array().unwrap();
        assert_eq!(clips.len(), 2, "captions are passed over");
        for clip in clips {
            assert_eq!(clip["shows"], true, "{clip}");
            let value = clip[measured].as_f64().unwrap();
            let right = match motion {
                "zoom-in" => (1.5..2.1).contains(&value),
                "pan-left" => (-0.34..-0.17).contains(&value),
                "tilt-down" => (0.17..0.34).contains(&value),
                _ => (29.0..61.0).contains(&value),
            };
            assert!(right, "{motion}: {clip}");
        }
    }
    let text = desk.ok("animatediff eval camera zoom-in/00000 --motion roll-clockwise");
    assert!(text.contains("  no  zoom-in/00000") && text.contains("0 of 1 clips show it"), "{text}");
    desk.refused("animatediff eval camera v/vistas/00000.png", &["one frame is read", "00000.png"]);
    desk.refused("animatediff eval camera missing.mp4", &["missing.mp4"]);
    desk.ok("animatediff data shapes small --size 12 --frames 4 --clips 1 --format frames");
    desk.refused("animatediff eval camera small/videos/00000", &["12x12 is too small", "at least 16x16"]);
    desk.refused("animatediff eval camera v/vistas/00000.txt", &["only captions", "name the clips"]);
}

#[test]
fn augment_carries_captions_over() {
    let folder = folder();
    gradient(80, 60).save_png(&folder.path().join("a.png")).unwrap();
    counting(6, 8.0).save(&folder.path().join("b")).unwrap();
    fs::write(folder.path().join("a.txt"), "a gradient\n").unwrap();
    let line =
        "augment OUT/a.png OUT/a.txt OUT/b --motion pan-left --clips 3 -o OUT/pan --size 32 --frames 6 --format frames";
    let message = data(line, folder.path()).unwrap_err();
    assert!(message.contains("b: no caption in ") && message.contains("add --caption"), "{message}");
    data(&format!("{line} --caption numbers"), folder.path()).unwrap();
    let config = Config { videos: Some(folder.path().join("pan")), sample_n_frames: 2, ..Config::default() };
    let dataset = Dataset::open(&config).unwrap();
    let expected = [("00000", "a gradient"), ("00001", "numbers"), ("00002", "a gradient")];
    assert_eq!(paths_and_captions(&dataset, &folder.path().join("pan")), pairs(&expected));
    let short = data("augment OUT/b --motion zoom-in -o OUT/z --caption x --frames 7 --format frames", folder.path());
    assert!(short.unwrap_err().contains("6 frames, and a clip takes 7; lower --frames"));
}

#[test]
fn commands_refuse_what_they_cannot_do_before_they_begin() {
    let folder = folder();
    let cases = [
        ("shapes OUT/s --clips 0", "--clips 0 makes nothing"),
        ("shapes OUT/s --frames 0", "--frames 0"),
        ("shapes OUT/s --fps 0", "--fps 0"),
        ("shapes OUT/s --size 0", "WIDTHxHEIGHT"),
        ("shapes OUT/s --size 33 --format mp4", "MP4 needs even sides"),
        ("augment OUT/x.png --motion sideways -o OUT/s", "zoom-in"),
        ("augment OUT/x.txt --motion zoom-in -o OUT/s", "only caption files"),
        ("augment OUT/x.png --motion zoom-in --caption x -o OUT/s", "no such file"),
    ];
    for (line, expected) in cases {
        let message = data(line, folder.path()).unwrap_err();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[cfg(feature = "ffmpeg")]
mod videos {
    use super::*;
    use crate::video::{cut, number_of};
    use animatediff::video::Video;

    #[test]
    fn videos_load_at_the_frames_that_were_chosen() {
        let folder = folder();
        counting(60, 25.0).save(&folder.path().join("a.mp4")).unwrap();
        let config = Config {
            videos: Some(folder.path().into()),
            caption: Some("numbers".into()),
            sample_size: Size { height: 32, width: 128 },
            ..Config::default()
        };
        let config = Config { sample_n_frames: 4, sample_stride: 5, ..config };
        let dataset = Dataset::open(&config).unwrap();
        for position in 0..10 {
            let sample = dataset.decode(0, position).unwrap();
            let expected = choice::choose(&config, 60, &mut choice::random(0, position)).unwrap().frames;
            let shown = sample.pixels.chunks(3 * 32 * 128).map(|chw| {
                let byte = |value: &f32| ((value * 0.5 + 0.5) * 255.0).round() as u8;
                let rgb = chw[..32 * 128].iter().flat_map(|value| [byte(value); 3]).collect();
                number_of(&Frame { width: 128, height: 32, rgb })
            });
            assert_eq!(shown.collect::<Vec<_>>(), expected.into_iter().map(Some).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pixels_of_a_video_are_those_of_its_frames() {
        for name in ["pyramid", "interlaced", "open_gop"] {
            let folder = folder();
            let path = Path::new("tests/clips").join(name).with_extension("mp4");
            fs::copy(&path, folder.path().join("a.mp4")).unwrap();
            let config = Config {
                videos: Some(folder.path().into()),
                caption: Some("a clip".into()),
                sample_size: Size { height: 40, width: 56 },
                sample_n_frames: 4,
                horizontal_flip: true,
                short_clips: ShortClips::Denser,
                ..Config::default()
            };
            let dataset = Dataset::open(&config).unwrap();
            let mut video = Video::open(&path).unwrap();
            let all = video.read(&(0..video.len()).collect::<Vec<_>>()).unwrap();
            for position in 0..12 {
                let choice = choice::choose(&config, all.len(), &mut choice::random(3, position)).unwrap();
                let frames: Vec<Frame> = choice.frames.iter().map(|index| all[*index].clone()).collect();
                let expected = pixels::pixels(&frames, config.sample_size, choice.flip);
                assert!(dataset.decode(3, position).unwrap().pixels == expected, "{name} at {position}");
            }
        }
    }

    #[test]
    fn broken_videos_are_counted_by_cause() {
        let folder = folder();
        for clip in 0..30 {
            counting(8, 8.0).save(&folder.path().join(format!("v{clip}.mp4"))).unwrap();
        }
        let short = cut(&folder.path().join("v0.mp4"), 0.8);
        fs::rename(short, folder.path().join("v0.mp4")).unwrap();
        fs::write(folder.path().join("v1.mp4"), "a page that says: not found").unwrap();
        counting(3, 8.0).save(&folder.path().join("v2.mp4")).unwrap();
        let config = Config {
            videos: Some(folder.path().into()),
            caption: Some("numbers".into()),
            sample_size: Size::square(8),
            sample_stride: 2,
            sample_n_frames: 4,
            max_unreadable: 0.2,
            ..Config::default()
        };
        let dataset = Arc::new(Dataset::open(&config).unwrap());
        let mut loader = Loader::new(dataset.clone(), 11, 0, 4).unwrap();
        let whole = loader.next_batch(60).unwrap();
        assert!(whole == stream(&dataset, 0, 1, 60));
        let causes: Vec<(&str, usize)> =
            loader.faults().by_cause().iter().map(|(cause, files)| (*cause, files.len())).collect();
        assert_eq!(causes, [("cut off or damaged", 1), ("not a video", 1), ("too short", 1)]);
    }
}
