//! `data check`: what it finds in sets whose faults are known, and that it finds nothing where there is nothing.

use std::fs;
use std::path::Path;

use animatediff::clip::Clip;
use animatediff::data::check::{cuts::Cuts, mark};
use animatediff::data::{Config, Dataset};
use animatediff::frame::Frame;
use serde_json::Value;

use crate::cli::support::Desk;

const WIDTH: usize = 128;
const HEIGHT: usize = 96;
const FRAMES: usize = 12;

/// A clip of rectangles that drift over a ground, other ones for each `number`.
fn scene(number: u64) -> Vec<Frame> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below) as i64
    };
    let ground = [draw(200) as u8, draw(200) as u8, draw(200) as u8];
    let colour = |draw: &mut dyn FnMut(u64) -> i64| [draw(256) as u8, draw(256) as u8, draw(256) as u8];
    let boxes: Vec<_> = (0..10)
        .map(|_| {
            let place = (draw(WIDTH as u64), draw(HEIGHT as u64), 8 + draw(30), 8 + draw(30));
            (place, (draw(5) - 2, draw(5) - 2), colour(&mut draw))
        })
        .collect();
    let frame = |time: i64| {
        let mut frame = Frame::filled(WIDTH, HEIGHT, ground);
        for &((x, y, width, height), (right, down), colour) in &boxes {
            fill(&mut frame, (x + right * time, y + down * time, width, height), colour, 1.0);
        }
        frame
    };
    (0..FRAMES as i64).map(frame).collect()
}

fn fill(frame: &mut Frame, (x, y, width, height): (i64, i64, i64, i64), colour: [u8; 3], share: f64) {
    for row in y.max(0)..(y + height).min(frame.height as i64) {
        for column in x.max(0)..(x + width).min(frame.width as i64) {
            let at = 3 * (row as usize * frame.width + column as usize);
            for (level, new) in frame.rgb[at..at + 3].iter_mut().zip(colour) {
                *level = (f64::from(*level) * (1.0 - share) + f64::from(new) * share) as u8;
            }
        }
    }
}

/// A half transparent sign in the upper right corner.
fn mark_frames(frames: &mut [Frame]) {
    for frame in frames {
        for stroke in 0..6 {
            fill(frame, (84 + 6 * stroke, 8, 3, 12), [255; 3], 0.6);
        }
    }
}

fn marks(clips: impl Iterator<Item = Vec<Frame>>) -> Vec<mark::Mark> {
    let mut votes = mark::Votes::default();
    for frames in clips {
        let mut still = mark::Still::default();
        frames.iter().for_each(|frame| still.add(frame));
        votes.add(still.structure().unwrap());
    }
    votes.find()
}

#[test]
fn cuts_are_found_and_motion_and_flashes_are_none() {
    let found = |frames: &[Frame]| {
        let mut cuts = Cuts::default();
        frames.iter().for_each(|frame| cuts.add(frame));
        cuts.finish()
    };
    let mut missed = 0;
    for number in 0..40 {
        let (one, other) = (scene(number), scene(number + 1000));
        assert!(found(&one).is_empty(), "scene {number}");
        let joined = [&one[..7], &other[..9], &one[3..]].concat();
        let cuts = found(&joined);
        assert!(cuts.iter().all(|cut| [7, 16].contains(cut)), "scene {number}: {cuts:?}");
        missed += 2 - cuts.len();
        let mut flash = one.clone();
        flash[5] = Frame::filled(WIDTH, HEIGHT, [255; 3]);
        assert!(found(&flash).is_empty(), "scene {number}: a flash");
    }
    assert!(missed <= 4, "{missed} of 80 cuts were missed");
    assert!(found(&[]).is_empty() && found(&scene(0)[..1]).is_empty());
    // Frames smaller than what they are compared by: cells that hold nothing do not make a cut smaller.
    let small = |from: [u8; 3], to: [u8; 3]| {
        let at = |frame: usize| Frame::filled(8, 8, if frame < 5 { from } else { to });
        found(&(0..10).map(at).collect::<Vec<_>>())
    };
    assert_eq!(small([10, 60, 10], [60, 10, 70]), [5]);
}

#[test]
fn a_mark_is_told_by_its_place_and_none_where_there_is_none() {
    for seed in [0, 500, 1000] {
        assert_eq!(marks((0..30).map(|number| scene(seed + number))), []);
    }
    let marked = |number: u64, every: u64| {
        let mut frames = scene(number);
        if number.is_multiple_of(every) {
            mark_frames(&mut frames);
        }
        frames
    };
    let found = marks((0..40).map(|number| marked(number, 1)));
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.kind, found.region.as_str(), found.clips), (mark::Kind::Watermark, "upper right", 40));
    assert!(found.share > 0.9, "{found:?}");
    let [left, top, right, bottom] = found.bounds;
    assert!((left - 84.0 / 128.0).abs() < 0.05 && (right - 117.0 / 128.0).abs() < 0.05, "{found:?}");
    assert!((top - 8.0 / 96.0).abs() < 0.05 && (bottom - 20.0 / 96.0).abs() < 0.05, "{found:?}");
    let half = marks((0..80).map(|number| marked(number, 2)));
    assert!(matches!(&half[..], [found] if (0.4..0.6).contains(&found.share)), "{half:?}");
    assert_eq!(marks((0..11).map(|number| marked(number, 1))), [], "too few to tell");
    // A frame of another size than the first is passed over.
    let mixed = marks((0..40).map(|number| [marked(number, 1), vec![Frame::filled(3, 500, [9; 3])]].concat()));
    assert!(matches!(&mixed[..], [found] if found.region == "upper right"), "{mixed:?}");
    assert!(mark::Still::default().structure().is_none());
}

#[cfg(feature = "ffmpeg")]
#[test]
fn a_set_with_known_faults_is_reported_and_compared_later() {
    let desk = Desk::new();
    let folder = desk.path("set");
    fs::create_dir(&folder).unwrap();
    let save = |name: &str, frames: Vec<Frame>, fps: f64| {
        Clip { frames, fps }.save(&folder.join(format!("{name}.mp4"))).unwrap();
        fs::write(folder.join(format!("{name}.txt")), format!("clip {name}")).unwrap();
    };
    for number in 0..14 {
        let mut frames = scene(number);
        mark_frames(&mut frames);
        save(&format!("good{number}"), frames, if number < 10 { 8.0 } else { 24.0 });
    }
    save("cut", [&scene(20)[..8], &scene(21)[..]].concat(), 8.0);
    save("short", scene(22)[..3].to_vec(), 8.0);
    save("torn", scene(23), 8.0);
    let bytes = fs::read(folder.join("torn.mp4")).unwrap();
    fs::write(folder.join("torn.mp4"), &bytes[..bytes.len() * 3 / 4]).unwrap();
    save("empty", scene(24), 8.0);
    fs::write(folder.join("empty.mp4"), "").unwrap();
    fs::copy(folder.join("good3.mp4"), folder.join("twin.mp4")).unwrap();
    let line =
        "animatediff data check --videos set --set train_data.sample_n_frames=8 --set train_data.sample_stride=1";
    let done = desk.run(&format!("{line} -o out --json"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&told["clips"], &told["usable"]), (&19.into(), &16.into()), "{told}");
    let broken: Vec<(&str, usize)> =
        told["broken"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_array().unwrap().len())).collect();
    assert_eq!(broken, [("cut off or damaged", 1), ("not a video", 1), ("too short", 1)]);
    assert_eq!(told["sizes"]["128x96"], 17);
    assert_eq!((&told["rates"]["8"], &told["rates"]["24"]), (&13.into(), &4.into()));
    assert_eq!(told["frames"], serde_json::json!([3, 12, 20]));
    assert_eq!(told["without_caption"], serde_json::json!(["twin"]));
    assert_eq!(told["cuts"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!((&told["cuts"][0]["id"], &told["cuts"][0]["frames"]), (&"cut".into(), &serde_json::json!([8])));
    assert_eq!(told["marks"][0]["region"], "upper right", "{told}");
    assert_eq!(told["duplicate_contents"].as_array().unwrap().len(), 1);
    assert_eq!(told["duplicate_ids"], serde_json::json!([]));
    let text = desk.run(line).stdout;
    for words in
        ["19 clips read: 16 can be trained on", "too short: 1", "likely a watermark: upper right", "cut at frame 8"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }

    let good = Config { csv_path: Some(desk.path("out/good.csv")), ..Config::default() };
    assert_eq!(Dataset::open(&good).unwrap().len(), 15, "without the twin");
    assert!(desk.run(&format!("{line} -o strict --leave-out duplicates,captions,cuts")).code == Some(1));
    let strict = Config { csv_path: Some(desk.path("strict/good.csv")), ..Config::default() };
    assert_eq!(Dataset::open(&strict).unwrap().len(), 14);

    let verify = "cd / && animatediff data check --verify $OLDPWD/out/check.json";
    assert!(desk.ok(verify).contains("19 files compared\nall as it was"));
    fs::write(folder.join("good1.mp4"), "other bytes").unwrap();
    fs::remove_file(folder.join("good2.mp4")).unwrap();
    fs::write(folder.join("good4.txt"), "another caption").unwrap();
    fs::copy(folder.join("good5.mp4"), folder.join("late.mp4")).unwrap();
    let done = desk.run(&format!("{verify} --json"));
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    let names = |key: &str| -> Vec<String> {
        let paths = told[key].as_array().unwrap().iter();
        paths
            .map(|path| Path::new(path.as_str().unwrap()).file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(done.code, Some(1), "{told}");
    assert_eq!([names("changed"), names("missing")], [["good1"], ["good2"]]);
    assert_eq!([names("captions"), names("new")], [["good4"], ["late"]]);
    desk.refused(
        "animatediff data check --verify set/good1.txt",
        &["not a list that `animatediff data check -o` wrote"],
    );
    desk.refused("animatediff data check", &["no training clips are named"]);
    desk.refused("animatediff data check --videos nowhere", &["no such folder"]);
}

/// What `data check --json` tells of `set`, with these flags, and the exit code.
fn told(desk: &Desk, flags: &str) -> (Value, Option<i32>) {
    let done = desk.run(&format!("animatediff data check {flags} --json"));
    let told = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
    (told, done.code)
}

/// A stage of single frames takes pictures, and clips of any length.
#[test]
fn sets_are_read_as_the_stage_takes_them() {
    let desk = Desk::new();
    desk.ok("animatediff data shapes stills --domain stills --size 32 --clips 5");
    let stage = |stage: &str| told(&desk, &format!("--csv stills/clips.csv --stage {stage}"));
    for name in ["adapter", "image", "vae"] {
        let (found, code) = stage(name);
        assert_eq!((code, &found["usable"], &found["sample_n_frames"]), (Some(0), &5.into(), &1.into()), "{found}");
        assert_eq!((&found["broken"], &found["rates"]), (&serde_json::json!({}), &serde_json::json!({})), "{found}");
    }
    assert_eq!(stage("motion").1, Some(1), "no picture is a clip of several frames");

    // Two scenes, fewer frames than a clip takes, and one frame of another size: all of it serves frame by frame.
    fs::create_dir(desk.path("set")).unwrap();
    let frames = [&scene(20)[..8], &scene(21)[..4]].concat();
    Clip { frames, fps: 8.0 }.save(&desk.path("set/cut")).unwrap();
    Frame::filled(7, 9, [1, 2, 3]).save_png(&desk.path("set/cut/9999.png")).unwrap();
    scene(3)[0].save_png(&desk.path("set/still.png")).unwrap();
    let set = "--videos set --caption words";
    let (found, code) = told(&desk, &format!("{set} --stage adapter"));
    assert_eq!((code, &found["clips"], &found["usable"]), (Some(0), &2.into(), &2.into()), "{found}");
    assert_eq!((&found["cuts"], &found["frames"]), (&serde_json::json!([]), &serde_json::json!([1, 13, 13])));
    let text = desk.ok(&format!("animatediff data check {set} --stage adapter -o out"));
    assert!(text.contains("one frame is taken of each clip") && !text.contains("scene:"), "{text}");
    let good = Config { csv_path: Some(desk.path("out/good.csv")), sample_n_frames: 1, ..Config::default() };
    assert_eq!(Dataset::open(&good).unwrap().len(), 2);
    assert!(desk.ok("animatediff data check --verify out/check.json").contains("2 files compared\nall as it was"));
    let (found, code) = told(&desk, &format!("{set} --set train_data.sample_n_frames=4"));
    assert_eq!((code, &found["broken"]["unusable frame folder"][0]["id"]), (Some(1), &"cut".into()), "{found}");
    desk.write("image.yaml", "image_finetune: true");
    desk.refused(
        &format!("animatediff data check -c image.yaml {set}"),
        &["`train image`", "choose its stage with --stage"],
    );
    desk.ok(&format!("animatediff data check -c image.yaml --stage image {set}"));
}

/// A file may stand in several rows, with a caption in each.
#[test]
fn rows_of_one_file_are_compared_together() {
    let desk = Desk::new();
    desk.ok("animatediff data shapes s --size 32 --clips 3 --frames 4 --format frames");
    let table = |rows: &[&str]| desk.write("clips.csv", format!("video,caption\n{}\n", rows.join("\n")));
    let all = ["s/videos/00000,a", "s/videos/00001,b", "s/videos/00000,other words", "s/videos/00002,c"];
    table(&all);
    let set = "--csv clips.csv --set train_data.sample_n_frames=2 --set train_data.sample_stride=1 -o out";
    let (found, code) = told(&desk, set);
    assert_eq!(code, Some(0));
    assert_eq!(found["duplicate_ids"][0]["what"], "s/videos/00000", "{found}");
    assert_eq!(found["duplicate_contents"], serde_json::json!([]), "one file is no duplicate of itself");
    let verify = || {
        let (found, code) = told(&desk, "--verify out/check.json");
        let names = |key: &str| -> Vec<String> {
            let paths = found[key].as_array().unwrap().iter().map(|path| Path::new(path.as_str().unwrap()));
            paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        (found["compared"].clone(), code, ["changed", "missing", "new", "captions"].map(names))
    };
    let none = || ["", "", "", ""].map(|_| Vec::<String>::new());
    assert_eq!(verify(), (3.into(), Some(0), none()));
    // In another order, they are the same rows.
    table(&[all[2], all[3], all[0], all[1]]);
    assert_eq!(verify(), (3.into(), Some(0), none()));
    let expect = |rows: &[&str], kind: usize, name: &str| {
        table(rows);
        let mut differences = none();
        differences[kind].push(name.into());
        assert_eq!(verify(), (3.into(), Some(1), differences), "{rows:?}");
    };
    expect(&[all[0], all[1], all[3]], 1, "00000");
    expect(&[&all[..], &["s/videos/00002,more words"]].concat(), 2, "00002");
    expect(&[all[0], all[1], "s/videos/00000,changed words", all[3]], 3, "00000");
    desk.ok("cp s/videos/00001/* s/videos/00000/");
    expect(&all, 0, "00000");
}

#[test]
fn flags_that_would_change_nothing_are_refused() {
    let desk = Desk::new();
    for (flags, words) in [
        ("--videos a --leave-out cuts", "--out"),
        ("--verify a.json --leave-out cuts", "--leave-out"),
        ("--verify a.json --caption x", "--caption"),
        ("--verify a.json --video-folder x", "--video-folder"),
        ("--verify a.json --stage image", "--stage"),
        ("--verify a.json --videos a", "--videos"),
        ("--csv a.csv --caption x", "--caption"),
        ("--videos a -o out --leave-out none,cuts", "--leave-out none leaves nothing out"),
        ("--videos a -o out --leave-out cuts --stage image", "no cut is within a single frame"),
    ] {
        desk.refused(&format!("animatediff data check {flags}"), &[words]);
    }
}

/// A folder on the command line is in the place of whatever the file names.
#[test]
fn a_folder_or_a_table_replaces_what_the_file_names() {
    let desk = Desk::new();
    desk.ok("animatediff data shapes s --size 32 --clips 2 --frames 4 --format frames --domain video");
    desk.write("archives.yaml", "train_data: {shards: ['{0..9}.tar'], shuffle_buffer: 9}");
    desk.write("folder.yaml", "train_data: {videos: nowhere, caption: words}");
    let rest = "--set train_data.sample_n_frames=2 --set train_data.sample_stride=1";
    for from in ["--videos s/videos --caption words", "--csv s/clips.csv --video-folder s/videos"] {
        for file in ["archives", "folder"] {
            desk.ok(&format!("animatediff data check -c {file}.yaml {from} {rest}"));
        }
    }
}

#[test]
fn clean_shapes_have_no_fault_and_veiled_ones_a_mark() {
    let desk = Desk::new();
    let check = |name: &str| {
        desk.ok(&format!(
            "animatediff data shapes {name} --clips 24 --size 64 --frames 12 --format frames {}",
            if name == "clean" { "--veil 0" } else { "" }
        ));
        let line = format!(
            "animatediff data check --csv {name}/clips.csv --set train_data.sample_stride=1 \
             --set train_data.sample_n_frames=8 --video-folder {name}/videos --json"
        );
        serde_json::from_str::<Value>(&desk.ok(&line)).unwrap()
    };
    let clean = check("clean");
    for key in ["cuts", "marks", "duplicate_ids", "duplicate_contents", "without_caption"] {
        assert_eq!(clean[key], serde_json::json!([]), "{key}");
    }
    let veiled = check("veiled");
    assert_eq!(veiled["cuts"], serde_json::json!([]));
    assert!(veiled["marks"].as_array().unwrap().iter().any(|mark| mark["region"] == "middle"), "{}", veiled["marks"]);
}
