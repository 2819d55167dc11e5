//! `data cache`, and training from what it made.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::support::{Desk, Run};
use crate::support::largest;

/// Two epochs of the eight clips, in steps of two.
const EPOCHS: &str = "--max-steps 8 --set train_data.horizontal_flip=true --set cfg_random_null_text_ratio=0.5";
const CACHED: &str = "--set train_data.cache=cache";

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("cache.json")).unwrap()).unwrap()
}

fn same_weights(a: &Run, b: &Run) {
    let (a, b) = (a.tensors(), b.tensors());
    assert!(!a.is_empty() && a.keys().eq(b.keys()));
    assert!(a.iter().all(|(name, tensor)| *tensor == b[name]));
}

#[test]
fn training_from_a_cache_equals_training_without_it() {
    let desk = Desk::new();
    let plain = desk.train(&format!("motion -c $TINY {EPOCHS}"));
    let told = desk.run("animatediff data cache -c $TINY --set train_data.horizontal_flip=true --positions 2 -o cache");
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "cache\n"), "{}", told.stderr);
    assert!(told.stderr.contains("16 entries of clips and 9 captions"), "{}", told.stderr);
    let cached = desk.train(&format!("motion -c $TINY {EPOCHS} {CACHED}"));
    assert_eq!(plain.losses(), cached.losses());
    same_weights(&plain, &cached);
    assert_eq!(cached.names("sanity_check").len(), 2, "the first batch is shown, decoded from the cache");
    // Look-ahead is the third way to the same numbers.
    let ahead = desk.train(&format!("motion -c $TINY {EPOCHS} --set encode_ahead=true"));
    assert_eq!(plain.losses(), ahead.losses());
    // A third epoch takes up what there is, and a resumed run goes on with it.
    let longer = EPOCHS.replace("--max-steps 8", "--max-steps 12 --set checkpointing_steps=8");
    let longer = desk.train(&format!("motion -c $TINY {longer} {CACHED}"));
    assert_eq!(longer.losses()[..8], plain.losses());
    let folder = longer.folder.display();
    let resumed = desk.train(&format!("motion --resume {folder}/checkpoints/step-00000008"));
    assert_eq!(resumed.losses(), longer.losses());
    let other = format!("animatediff train motion --resume {folder} --set train_data.cache=null --max-steps 13");
    desk.refused(&other, &["`cache` was", "is now null"]);
}

#[test]
fn single_frames_are_cached_for_the_stages_that_take_them() {
    let desk = Desk::new();
    desk.ok("animatediff data cache --stage adapter -c $TINY -o cache");
    let plain = desk.train("adapter -c $TINY --max-steps 4");
    let cached = desk.train(&format!("adapter -c $TINY --max-steps 4 {CACHED}"));
    assert_eq!(plain.losses(), cached.losses());
    // The text encoder that is trained reads captions itself.
    let plain = desk.train("image -c $TINY --max-steps 2 --set train_text_encoder=true");
    let cached = desk.train(&format!("image -c $TINY --max-steps 2 --set train_text_encoder=true {CACHED}"));
    assert_eq!(plain.losses(), cached.losses());
    desk.refused(&format!("animatediff train motion -c $TINY {CACHED}"), &["`sample_n_frames` 1, and here it is 4"]);
}

#[test]
fn float16_is_near_and_half_as_large() {
    let desk = Desk::new();
    let size = |name: &str| manifest(&desk.path(name))["latents"][0]["bytes"].as_u64().unwrap();
    desk.ok("animatediff data cache -c $TINY -o full");
    desk.ok("animatediff data cache -c $TINY -o half --dtype fp16");
    assert!(size("half") * 2 < size("full") + 200, "{} {}", size("half"), size("full"));
    let near = |name: &str| desk.train(&format!("motion -c $TINY --set train_data.cache={name}")).losses()[0][0];
    let (half, full) = (near("half"), near("full"));
    assert!(half != full && (half / full - 1.0).abs() < 1e-2, "{half} {full}");
}

#[test]
fn later_epochs_show_each_position_mirrored() {
    let desk = Desk::new();
    let flip = "--set train_data.horizontal_flip=true";
    desk.refused("animatediff data cache -c $TINY -o cache --both-flips", &["train_data.horizontal_flip", "off"]);
    desk.ok(&format!("animatediff data cache -c $TINY {flip} -o cache --both-flips"));
    let latents = crate::support::tensors_of(&desk.path("cache/moments-00000.safetensors")).remove("moments").unwrap();
    assert_eq!(latents.size(), [16, 4, 8, 4, 4]);
    let (first, mirrored) = (latents.narrow(0, 0, 8), latents.narrow(0, 8, 8));
    assert!(largest(&(&first - &mirrored)) > 0.0);
    desk.train(&format!("motion -c $TINY {flip} --max-steps 10 {CACHED}"));
}

/// Waits for `done`, and kills `process` if that takes long.
fn wait_for(process: &mut Child, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        let ended = process.try_wait().unwrap();
        if ended.is_some() || start.elapsed() > Duration::from_secs(60) {
            drop(process.kill());
            panic!("it should be at work: {ended:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(process: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_cache_that_was_stopped_is_taken_up_again() {
    let desk = Desk::new();
    let line = |out: &str| format!("exec animatediff data cache -c $TINY --positions 60 --shard-mib 0.03 -o {out}");
    desk.ok(&line("whole").replace("exec ", ""));
    let shards = |name: &str| {
        let text = fs::read(desk.path(name).join("cache.json")).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).map_or(0, |told| told["latents"].as_array().unwrap().len())
    };
    for (name, after) in [("-TERM", 1), ("-KILL", 5)] {
        let mut process = desk.command(&line("stopped")).stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_for(&mut process, || shards("stopped") >= after);
        signal(&process, name);
        let status = process.wait().unwrap();
        assert_eq!(status.code(), (name == "-TERM").then_some(143));
        assert!(shards("stopped") < shards("whole"), "it was stopped in time");
    }
    desk.refused("animatediff train motion -c $TINY --set train_data.cache=stopped", &["is not complete", "again"]);
    let bytes = desk.bytes("stopped/moments-00002.safetensors");
    let damaged: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at + 9 == bytes.len())).collect();
    desk.write("stopped/moments-00002.safetensors", damaged);
    let done = desk.run(&line("stopped"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("1 were damaged and made anew"), "{}", done.stderr);
    assert_eq!(manifest(&desk.path("stopped")), manifest(&desk.path("whole")), "every file has the same hash");
    let again = desk.run(&line("stopped"));
    assert!(again.stderr.contains(" 0 files written"), "{}", again.stderr);
}

#[test]
fn clips_that_cannot_be_read_are_left_out_in_the_same_places() {
    let desk = Desk::new();
    desk.ok("cp -r $SHAPES set; echo nothing > set/videos/00003.mp4");
    let set = "--set train_data.csv_path=set/clips.csv --set train_data.video_folder=set/videos \
               --set train_data.max_unreadable=0.5";
    let plain = desk.train(&format!("motion -c $TINY {set} --max-steps 4"));
    let made = desk.run(&format!("animatediff data cache -c $TINY {set} -o cache"));
    assert!(made.code == Some(0) && made.stderr.contains("1 entries are missing"), "{}", made.stderr);
    let cached = desk.train(&format!("motion -c $TINY {set} --max-steps 4 {CACHED}"));
    assert_eq!(plain.losses()[..3], cached.losses()[..3]);
}

#[test]
fn a_cache_of_something_else_is_refused_with_the_key() {
    let desk = Desk::new();
    desk.ok("animatediff data cache -c $TINY -o cache");
    desk.ok("sed 's/videos,/videos,other /' $SHAPES/clips.csv > other.csv");
    desk.ok("sed 1d other.csv > rows; head -1 $SHAPES/clips.csv > other.csv; cat rows >> other.csv");
    for (setting, words) in [
        ("train_data.sample_size=64", "`sample_size` 32, and here it is 64"),
        ("train_data.sample_stride=1", "`sample_stride` 2, and here it is 1"),
        ("global_seed=7", "`global_seed` 42, and here it is 7"),
        ("train_data.horizontal_flip=true", "`horizontal_flip` false, and here it is true"),
        ("pretrained_model_path=$GOLD", "was made with another"),
        ("train_data.csv_path=other.csv", "was made of other clips or captions"),
        ("train_data.cache=nowhere", "holds no cache; make one with `animatediff data cache`"),
        ("cache_latents=true", "`train_data.cache` holds the latents already"),
        ("encode_ahead=true", "`train_data.cache` leaves nothing to encode"),
    ] {
        desk.refused(&format!("animatediff train motion -c $TINY {CACHED} --set {setting}"), &[words]);
    }
    desk.refused(&format!("animatediff train vae -c $TINY {CACHED}"), &["the VAE is trained on pixels"]);
    let other = "animatediff data cache -c $TINY -o cache";
    desk.refused(&format!("{other} --set train_data.sample_size=64"), &["`sample_size`", "choose another folder"]);
    desk.refused(&format!("{other} --positions 2"), &["was begun with other --positions"]);
    desk.refused("animatediff data cache -c $TINY -o $SHAPES", &["it is not the folder of a cache"]);
    desk.refused("animatediff data cache -c $TINY", &["give the folder", "-o"]);
    let mut bytes = desk.bytes("cache/moments-00000.safetensors");
    *bytes.last_mut().unwrap() ^= 1;
    desk.write("cache/moments-00000.safetensors", &bytes);
    desk.refused(&format!("animatediff train motion -c $TINY {CACHED}"), &["its hash differs", "data cache` again"]);
    bytes.pop();
    desk.write("cache/moments-00000.safetensors", &bytes);
    desk.refused(&format!("animatediff train motion -c $TINY {CACHED}"), &["bytes are expected"]);
}
