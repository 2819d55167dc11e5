//! Tar archives of clips: the right clips with the right words, in an order that seed and position decide, and plain words for
//! what is wrong.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use animatediff::data::{Config, Dataset, Loader, Size};
use animatediff::frame::Frame;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::video::folder;

/// Writes a tar archive of these members.
fn tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.finish().unwrap();
}

/// A picture that tells its number.
fn png(number: usize) -> Vec<u8> {
    let frame = Frame::filled(8, 8, [number as u8, (number >> 8) as u8, 77]);
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(8, 8, frame.rgb).unwrap().write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Archives that hold `sizes` pictures, numbered through; captions are `.txt` and `.json` in turn.
fn archives(sizes: &[usize]) -> (TempDir, Config) {
    let folder = folder();
    let mut number = 0;
    for (shard, size) in sizes.iter().enumerate() {
        let mut members = Vec::new();
        for key in 0..*size {
            members.push((format!("part/{key:04}.png"), png(number)));
            members.push(match number % 2 {
                0 => (format!("part/{key:04}.txt"), format!(" clip {number}\n").into_bytes()),
                _ => (format!("part/{key:04}.json"), format!("{{\"text\": \"clip {number}\"}}").into_bytes()),
            });
            number += 1;
        }
        tar(&folder.path().join(format!("{shard:03}.tar")), &members);
    }
    let config = Config {
        shards: vec![folder.path().join("*.tar").to_str().unwrap().into()],
        shuffle_buffer: 7,
        sample_size: Size::square(4),
        sample_n_frames: 1,
        ..Config::default()
    };
    (folder, config)
}

fn number_in(caption: &str) -> usize {
    caption.strip_prefix("clip ").unwrap().parse().unwrap()
}

fn order(dataset: &Dataset, seed: u64, epoch: usize) -> Vec<usize> {
    let first = (epoch * dataset.len()) as u64;
    (first..first + dataset.len() as u64).map(|position| dataset.item_at(seed, position)).collect()
}

fn refusal(config: &Config) -> String {
    Dataset::open(config).expect_err("this has to be refused").to_string()
}

#[test]
fn members_become_clips_with_their_words_and_pixels() {
    let (_folder, config) = archives(&[5, 1, 9]);
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(dataset.len(), 15);
    for item in 0..15 {
        assert_eq!(dataset.caption(item), format!("clip {item}"));
    }
    assert_eq!(dataset.id(6), "part/0000");
    assert!(dataset.path(6).to_str().unwrap().contains("002.tar, byte "), "{}", dataset.path(6).display());
    for position in 0..30 {
        let sample = dataset.decode(3, position).unwrap();
        let red = ((sample.pixels[0] * 0.5 + 0.5) * 255.0).round() as usize;
        assert_eq!(red, number_in(&sample.caption), "at {position}");
    }
}

#[test]
fn the_list_is_kept_and_made_anew_when_an_archive_changes() {
    let (folder, config) = archives(&[3, 4]);
    let kept = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "index")).collect::<Vec<PathBuf>>()
    };
    let first = Dataset::open(&config).unwrap().fingerprint().to_string();
    let [list] = &kept()[..] else { panic!("{:?}", kept()) };
    let stamp = fs::metadata(list).unwrap().modified().unwrap();
    assert_eq!(Dataset::open(&config).unwrap().fingerprint(), first);
    assert_eq!(fs::metadata(list).unwrap().modified().unwrap(), stamp, "it is read again, not made again");
    // A list that is damaged is made again, and so is one of archives that were written since.
    let mut bytes = fs::read(list).unwrap();
    bytes[150] ^= 1;
    fs::write(list, bytes).unwrap();
    assert_eq!(Dataset::open(&config).unwrap().fingerprint(), first);
    tar(&folder.path().join("001.tar"), &[("a.png".into(), png(3)), ("a.txt".into(), b"clip 3".to_vec())]);
    let changed = Dataset::open(&config).unwrap();
    assert_eq!((changed.len(), kept().len()), (4, 1));
    assert_ne!(changed.fingerprint(), first);
    let wider = Config { shuffle_buffer: 8, ..config.clone() };
    assert_ne!(Dataset::open(&wider).unwrap().fingerprint(), changed.fingerprint(), "another order is another stream");
    let as_table = Config { csv_path: Some(list.clone()), shards: Vec::new(), shuffle_buffer: 2048, ..config };
    assert!(refusal(&as_table).contains("an index of archives; name the archives themselves in `shards`"));
}

#[test]
fn an_epoch_takes_shards_in_turn_and_shuffles_within_windows() {
    let sizes = [10, 3, 20, 1, 6];
    let (_folder, config) = archives(&sizes);
    let dataset = Dataset::open(&config).unwrap();
    let starts: Vec<usize> = sizes.iter().scan(0, |end, size| Some(std::mem::replace(end, *end + size))).collect();
    let shard_of = |item: usize| starts.partition_point(|start| *start <= item) - 1;
    let mut orders = HashSet::new();
    for (seed, epoch) in [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)] {
        let items = order(&dataset, seed, epoch);
        assert_eq!(items.iter().collect::<HashSet<_>>().len(), 40, "each once");
        // With its windows put in order, the sequence is the shards one after another, each in its own order.
        let mut place = vec![0; 40];
        let unshuffled = Dataset::open(&Config { shuffle_buffer: 1, ..config.clone() }).unwrap();
        let plain = order(&unshuffled, seed, epoch);
        plain.iter().enumerate().for_each(|(at, item)| place[*item] = at);
        for pair in plain.windows(2) {
            assert!(pair[1] == pair[0] + 1 || shard_of(pair[1]) != shard_of(pair[0]));
        }
        let turns = plain.chunk_by(|a, b| shard_of(*a) == shard_of(*b)).count();
        assert_eq!(turns, sizes.len(), "every shard is read in one go");
        for (at, item) in items.iter().enumerate() {
            assert_eq!(place[*item] / 7, at / 7, "an item stays in its window");
        }
        assert_ne!(items, plain);
        orders.insert(items);
    }
    assert_eq!(orders.len(), 5);
}

/// Runs saved before an update have to go on with the same items: a change here breaks resuming.
#[test]
fn orders_of_archives_never_change() {
    let (_folder, config) = archives(&[4, 4, 2]);
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(order(&dataset, 42, 1), ORDER);
}

const ORDER: [usize; 10] = [2, 4, 1, 9, 3, 0, 8, 7, 6, 5];

#[test]
fn processes_share_archives_and_resume_at_the_exact_clip() {
    let (_folder, config) = archives(&[6, 5, 8]);
    let dataset = Arc::new(Dataset::open(&config).unwrap());
    let whole = Loader::new(dataset.clone(), 11, 0, 2).unwrap().next_batch(40).unwrap();
    for world in [2, 3] {
        for rank in 0..world {
            let mut loader = Loader::sharded(dataset.clone(), 11, 0, 2, rank, world).unwrap();
            let own: Vec<_> = whole.iter().skip(rank).step_by(world).take(12).cloned().collect();
            assert!(loader.next_batch(12).unwrap() == own, "rank {rank} of {world}");
        }
    }
    for start in [1, 7, 18, 19, 20] {
        let resumed = Loader::new(dataset.clone(), 11, start, 3).unwrap().next_batch(15).unwrap();
        assert!(resumed == whole[start as usize..start as usize + 15], "resumed at {start}");
    }
}

#[test]
fn what_makes_no_clip_is_left_out_and_what_is_broken_is_named() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let config = |name: &str| Config {
        shards: vec![at(name).to_str().unwrap().into()],
        sample_size: Size::square(4),
        sample_n_frames: 1,
        ..Config::default()
    };
    let member = |name: &str, text: &str| (name.to_string(), text.as_bytes().to_vec());
    tar(
        &at("lone.tar"),
        &[member("a.png", "x"), member("b.txt", "no clip"), ("c.png".into(), png(1)), member("c.txt", "clip 1")],
    );
    assert_eq!(Dataset::open(&config("lone.tar")).unwrap().len(), 1);
    tar(&at("none.tar"), &[member("a.png", "x"), member("b.txt", "no clip"), member("b.json", "{\"id\": 3}")]);
    let none = refusal(&config("none.tar"));
    assert!(none.contains("none.tar: no clip with a caption in 1 archives (1 clips without, 1 captions"), "{none}");
    tar(&at("words.tar"), &[("a.png".into(), png(1)), ("a.txt".into(), b"caf\xe9".to_vec())]);
    let words = refusal(&config("words.tar"));
    assert!(words.contains("words.tar: a.txt at byte ") && words.contains("not UTF-8 text"), "{words}");
    tar(&at("json.tar"), &[("a.png".into(), png(1)), member("a.json", "{caption")]);
    let json = refusal(&config("json.tar"));
    assert!(json.contains("json.tar: a.json at byte ") && json.contains("not JSON"), "{json}");
    fs::write(at("zip.tar"), [0x1f, 0x8b, 8, 0, 0]).unwrap();
    assert!(refusal(&config("zip.tar")).contains("zip.tar: a compressed archive"));
    fs::write(at("page.tar"), "not found ".repeat(100)).unwrap();
    assert!(refusal(&config("page.tar")).contains("page.tar: no tar archive, or damaged, after its start"));
    assert!(refusal(&config("missing.tar")).contains("missing.tar: no such archive; correct `shards`"));
    let gone = refusal(&config("no*.tar.gone"));
    assert!(gone.contains("no*.tar.gone: nothing in ") && gone.contains(" has such a name; correct"), "{gone}");
    let (others, mixed) = archives(&[2]);
    fs::write(others.path().join("notes.md"), "not a tar ".repeat(100)).unwrap();
    let mixed = refusal(&Config { shards: vec![others.path().join("*").to_str().unwrap().into()], ..mixed });
    assert!(mixed.contains("notes.md: no tar archive") && mixed.contains("name archives only"), "{mixed}");
    fs::create_dir(at("folder")).unwrap();
    let inside = refusal(&config("folder"));
    assert!(inside.contains("folder: a folder") && inside.contains("folder/*.tar`"), "{inside}");
    let empty = Config { shards: vec!["".into()], ..config("") };
    assert!(refusal(&empty).contains("`shards` has an empty name"));
    let both = Config { videos: Some(folder.path().into()), ..config("lone.tar") };
    assert!(refusal(&both).contains("both `videos` and `shards` are set"));
    let captioned = Config { caption: Some("a".into()), ..config("lone.tar") };
    assert!(refusal(&captioned).contains("archives bring their own captions"));
    let buffered = Config { videos: Some(folder.path().into()), shuffle_buffer: 9, ..Config::default() };
    assert!(refusal(&buffered).contains("`shuffle_buffer` goes with `shards`"));
}

/// A depth map beside a clip has the clip's key, and took the clip's place.
#[test]
fn a_key_ends_at_the_first_dot_and_only_a_whole_extension_makes_a_clip() {
    let folder = folder();
    let path = folder.path().join("a.tar");
    let config = Config {
        shards: vec![path.to_str().unwrap().into()],
        sample_size: Size::square(4),
        sample_n_frames: 1,
        ..Config::default()
    };
    let text = |name: &str, text: &str| (name.to_string(), text.as_bytes().to_vec());
    let (clip, other) = (("d/0001.png".to_string(), png(1)), |name: &str| (name.to_string(), png(9)));
    let words = text("d/0001.txt", "clip 1");
    for members in [
        vec![clip.clone(), other("d/0001.depth.png"), words.clone()],
        vec![other("d/0001.depth.png"), text("d/0001.t5.txt", "other words"), clip.clone(), words.clone()],
        vec![clip.clone(), words.clone(), other("d/0001.png.png"), text("d/0001.meta.json", "{}")],
        // What a Mac puts beside each file does not come between the two.
        vec![clip.clone(), other("d/._0001.png"), words.clone()],
        vec![("d/0001.PNG".to_string(), png(1)), text("d/0001.TXT", "clip 1")],
    ] {
        tar(&path, &members);
        let dataset = Dataset::open(&config).unwrap();
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((dataset.len(), dataset.caption(0)), (1, "clip 1"), "{names:?}");
        let sample = dataset.decode(0, 0).unwrap();
        assert_eq!(((sample.pixels[0] * 0.5 + 0.5) * 255.0).round(), 1.0, "{names:?}");
    }
    tar(&path, &[other("0001.depth.png"), text("0001.txt", "clip 1")]);
    let alone = refusal(&config);
    assert!(alone.contains("(0 clips without, 1 captions without a clip)"), "{alone}");
    assert!(alone.contains("a key ends at the first dot") && alone.contains("0001.depth.png"), "{alone}");
    for (twice, name) in [
        (vec![clip.clone(), other("d/0001.jpg"), words.clone()], "jpg"),
        (vec![clip.clone(), words.clone(), words], "txt"),
    ] {
        tar(&path, &twice);
        let message = refusal(&config);
        assert!(message.contains(&format!("a.tar: d/0001.{name} at byte ")), "{message}");
        assert!(message.contains("its key has such a member already"), "{message}");
    }
    // For clips of several frames, pictures are none, and that is what is told.
    tar(&path, &[clip, text("d/0001.txt", "clip 1")]);
    let still = refusal(&Config { sample_n_frames: 4, ..config });
    assert!(still.contains("1 pictures are there, which serve where one frame is taken of each clip"), "{still}");
}

#[test]
fn archives_that_were_cut_off_are_refused_wherever_the_cut_is() {
    let (folder, config) = archives(&[3]);
    let whole = fs::read(folder.path().join("000.tar")).unwrap();
    let cut = folder.path().join("cut.tar");
    let config = Config { shards: vec![cut.to_str().unwrap().into()], ..config };
    for length in (1..whole.len() - 512).step_by(31).chain((512..whole.len() - 512).step_by(512)) {
        fs::write(&cut, &whole[..length]).unwrap();
        let message = refusal(&config);
        assert!(message.contains("cut.tar") && message.contains("copy or download it again"), "{length}: {message}");
    }
    fs::write(&cut, &whole[..whole.len() - 512]).unwrap();
    assert_eq!(Dataset::open(&config).unwrap().len(), 3, "one empty block is mark enough");
}

#[test]
fn a_clip_that_cannot_be_read_is_counted_under_its_name() {
    let (folder, config) = archives(&[4, 4]);
    let dataset = Dataset::open(&Config { max_unreadable: 1.0, ..config }).unwrap();
    fs::write(folder.path().join("001.tar"), "gone").unwrap();
    let mut loader = Loader::new(Arc::new(dataset), 0, 0, 1).unwrap();
    loader.next_batch(8).unwrap();
    let all = loader.faults().to_string();
    assert!(all.contains("cannot be opened: 4") && all.contains("001.tar, byte ") && all.contains(".png"), "{all}");
}

#[test]
fn names_stand_for_many_archives() {
    let (folder, config) = archives(&[1; 12]);
    let at = |pattern: &str| folder.path().join(pattern).to_str().unwrap().to_string();
    let len = |patterns: &[&str]| {
        let shards = patterns.iter().map(|pattern| at(pattern)).collect();
        Dataset::open(&Config { shards, ..config.clone() })
            .map(|dataset| dataset.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(len(&["{000..011}.tar"]), Ok(12));
    assert_eq!(len(&["{000..004}.tar", "00{3,4,5}.tar"]), Ok(6), "each once");
    assert_eq!(len(&["0{0,1}{0..1}.tar"]), Ok(4));
    assert_eq!(len(&["00?.tar"]), Ok(10));
    assert_eq!(len(&["0*1.tar"]), Ok(2));
    for (wrong, why) in [
        ("{000..020}.tar", "{000..020}.tar: 9 of the 21 archives that it stands for are not there, first "),
        ("{1..0}.tar", "a range from 1 to 0"),
        ("{a..c}.tar", "`a` is no number of a range"),
        ("{000.tar", "a brace that is not closed"),
        ("{0..99999999}.tar", "a range from 0 to 99999999"),
        ("{{0,1}}.tar", "braces in braces"),
        ("*/a.tar", "in the last part of a path only"),
    ] {
        let message = len(&[wrong]).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
    let yaml = |text: &str| serde_yaml::from_str::<Config>(text).map(|config| config.shards);
    assert_eq!(yaml("shards: a.tar").unwrap(), ["a.tar"]);
    assert_eq!(yaml("shards: [a.tar, 'b{0..9}.tar']").unwrap(), ["a.tar", "b{0..9}.tar"]);
    assert_eq!(yaml("shards: null").unwrap(), Vec::<String>::new());
    assert!(yaml("shards: {a: b}").unwrap_err().to_string().contains("the name of an archive such as"));
}

#[cfg(feature = "ffmpeg")]
#[test]
fn videos_in_archives_are_those_in_files() {
    for name in ["pyramid", "flat", "open_groups"] {
        let folder = folder();
        let bytes = fs::read(format!("tests/clips/{name}.mp4")).unwrap();
        fs::write(folder.path().join("a.mp4"), &bytes).unwrap();
        let caption = b"{\"caption\": \"a clip\"}".to_vec();
        tar(&folder.path().join("a.tar"), &[("a.mp4".into(), bytes), ("a.json".into(), caption)]);
        let files = Config {
            videos: Some(folder.path().into()),
            caption: Some("a clip".into()),
            sample_size: Size::square(32),
            sample_n_frames: 8,
            ..Config::default()
        };
        let archive = folder.path().join("a.tar").to_str().unwrap().to_string();
        let shards = Config { videos: None, caption: None, shards: vec![archive], ..files.clone() };
        let (files, shards) = (Dataset::open(&files).unwrap(), Dataset::open(&shards).unwrap());
        for position in 0..8 {
            assert!(shards.decode(0, position).unwrap() == files.decode(0, position).unwrap(), "{name} at {position}");
        }
    }
}

#[cfg(feature = "ffmpeg")]
#[test]
fn a_picture_beside_a_video_is_not_the_clip() {
    let folder = folder();
    let path = folder.path().join("a.tar");
    let video = ("a.mp4".to_string(), fs::read("tests/clips/flat.mp4").unwrap());
    let (picture, words) = (("a.jpg".to_string(), png(1)), ("a.txt".to_string(), b"a clip".to_vec()));
    for members in [[video.clone(), picture.clone(), words.clone()], [picture, video, words]] {
        tar(&path, &members);
        for sample_n_frames in [1, 4] {
            let config = Config { shards: vec![path.to_str().unwrap().into()], sample_n_frames, ..Config::default() };
            let dataset = Dataset::open(&config).unwrap();
            assert!(dataset.len() == 1 && dataset.path(0).to_str().unwrap().ends_with("a.mp4"));
        }
    }
}

#[cfg(feature = "ffmpeg")]
#[test]
fn a_damaged_video_in_an_archive_is_named_with_its_place() {
    let folder = folder();
    let whole = fs::read("tests/clips/flat.mp4").unwrap();
    let members = [
        ("a.mp4".to_string(), whole[..whole.len() / 2].to_vec()),
        ("a.txt".to_string(), b"cut off".to_vec()),
        ("b.mp4".to_string(), b"a page that says: not found".to_vec()),
        ("b.txt".to_string(), b"no video".to_vec()),
    ];
    tar(&folder.path().join("a.tar"), &members);
    let archive = folder.path().join("a.tar").to_str().unwrap().to_string();
    let dataset = Dataset::open(&Config { shards: vec![archive], ..Config::default() }).unwrap();
    let mut messages = [0, 1].map(|position| dataset.decode(0, position).unwrap_err().to_string());
    messages.sort();
    assert!(messages[0].contains("a.tar, byte 512: a.mp4: cut off or damaged"), "{}", messages[0]);
    assert!(messages[1].contains("b.mp4: not a video"), "{}", messages[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_epoch_of_archives_brings_every_clip_once(
        sizes in prop::collection::vec(0usize..12, 1..6), window in 1usize..30, seed: u64,
    ) {
        prop_assume!(sizes.iter().sum::<usize>() > 0);
        let (_folder, config) = archives(&sizes);
        let dataset = Dataset::open(&Config { shuffle_buffer: window, ..config }).unwrap();
        for epoch in 0..3 {
            let seen: HashSet<usize> = order(&dataset, seed, epoch).into_iter().collect();
            prop_assert_eq!(seen.len(), dataset.len());
            prop_assert!(seen.iter().all(|item| *item < dataset.len()));
        }
    }
}
