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
        votes.add(&still);
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
