//! `data cache`, and training from what it made.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use animatediff::{
    assemble::Base,
    data::{Cache, Dataset, Sample},
    train::{self, caching, encode},
};
use serde_json::Value;
use tch::{Device, Kind};

use super::support::{Desk, Run, shared};
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
    // Captions were dropped on the way: the cached states of the empty one took part in this.
    let all_words = EPOCHS.replace("ratio=0.5", "ratio=0");
    let all_words = desk.train(&format!("motion -c $TINY {all_words} {CACHED}"));
    assert_ne!(all_words.losses(), cached.losses());
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
    desk.ok(&format!("animatediff data cache -c $TINY {flip} -o cache --both-flips --positions 2"));
    let text = fs::read_to_string(&shared()["TINY"]).unwrap();
    let mut config: train::Config = serde_yaml::from_str(&text).unwrap();
    config.train_data.horizontal_flip = true;
    let (dataset, base) = (Dataset::open(&config.train_data).unwrap(), Base::open_files(&config.base_files()).unwrap());
    let key = caching::key(&config, 4, &dataset, &base).unwrap();
    let (cache, vae) =
        (Cache::open(&desk.path("cache"), &key, &dataset).unwrap(), base.vae(Device::Cpu, Kind::Float).unwrap());
    let found = |sample: &Sample| sample.encoded.clone().unwrap().moments;
    let fresh = |position: u64, mirrored: bool| {
        let sample = dataset.try_decode(config.global_seed, position, mirrored).unwrap();
        encode::moments(&vae, &[sample], Device::Cpu)
    };
    let mut turns = [0, 0];
    for position in 0..40 {
        let sample = cache.sample(&dataset, position).unwrap();
        let item = dataset.item_at(config.global_seed, position);
        assert_eq!((&sample.id, sample.caption.as_str()), (&dataset.id(item), dataset.caption(item)));
        // The first two epochs are the stream's; the third and fourth are the same clips mirrored, each where its clip comes
        // in the order of that epoch; the fifth begins again.
        let (epoch, mirrored) = (position / 8 % 4 % 2, position / 8 % 4 >= 2);
        let same =
            (epoch * 8..epoch * 8 + 8).find(|place| dataset.item_at(config.global_seed, *place) == item).unwrap();
        let (error, other) = [mirrored, !mirrored]
            .map(|mirrored| largest(&(encode::tensor(&found(&sample), Device::Cpu) - fresh(same, mirrored))))
            .into();
        assert!(error < 1e-5 && other > 1e-3, "position {position}: {error} {other}");
        turns[usize::from(mirrored)] += 1;
    }
    assert_eq!(turns, [24, 16]);
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
    // Of a complete one, only what is damaged is made anew, wherever it stands.
    for name in ["moments-00001", "states-00000"] {
        let mut bytes = desk.bytes(&format!("stopped/{name}.safetensors"));
        *bytes.last_mut().unwrap() ^= 1;
        desk.write(&format!("stopped/{name}.safetensors"), bytes);
    }
    fs::remove_file(desk.path("stopped/moments-00003.safetensors")).unwrap();
    let mended = desk.run(&line("stopped"));
    assert!(
        mended.stderr.contains(" 3 files written") && mended.stderr.contains("3 were damaged"),
        "{}",
        mended.stderr
    );
    assert_eq!(manifest(&desk.path("stopped")), manifest(&desk.path("whole")));
    assert_eq!(desk.bytes("stopped/moments-00001.safetensors"), desk.bytes("whole/moments-00001.safetensors"));
    desk.refused(&line("stopped").replace("0.03", "0.5"), &["other --positions", "--shard-mib"]);
    desk.ok(&line("stopped").replace("--shard-mib 0.03", ""));
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
fn clips_that_could_not_be_read_are_tried_again() {
    let desk = Desk::new();
    desk.ok("cp -r $SHAPES set; echo nothing > set/videos/00003.mp4");
    let line = |more: &str| {
        format!(
            "animatediff data cache -c $TINY --shard-mib 0.01 -o cache --set train_data.csv_path=set/clips.csv \
             --set train_data.video_folder=set/videos {more}"
        )
    };
    let many = ["1 of 8 clips cannot be read: 12.5 %", "`max_unreadable` allows 5.0 %", "00003.mp4: not a video"];
    desk.refused(&line(""), &many);
    let patient = line("--set train_data.max_unreadable=0.5");
    let made = desk.run(&patient);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for words in ["1 entries are missing", "1 of 8 clips tried could not be read", "not a video: 1"] {
        assert!(made.stderr.contains(words), "{words}: {}", made.stderr);
    }
    let again = desk.run(&patient);
    for words in [" 0 files written", "1 entries are missing", "1 of 8 clips tried could not be read"] {
        assert!(again.stderr.contains(words), "{words}: {}", again.stderr);
    }
    desk.refused(&line(""), &many);
    desk.ok("cp $SHAPES/videos/00003.mp4 set/videos/");
    let mended = desk.run(&line(""));
    for words in [" 1 files written", "; 1 lacked clips that can be read now"] {
        assert!(mended.stderr.contains(words), "{words}: {}", mended.stderr);
    }
    assert!(!mended.stderr.contains("missing"), "{}", mended.stderr);
    desk.ok("animatediff data cache -c $TINY --shard-mib 0.01 -o whole");
    assert_eq!(manifest(&desk.path("cache")), manifest(&desk.path("whole")));
}

#[test]
fn what_decides_about_a_cache_is_noticed_when_it_changes_in_place() {
    let desk = Desk::new();
    desk.ok("cp -r $BASE base; animatediff init --preset tiny --seed 9 other");
    let rest = "-c $TINY --set pretrained_model_path=base";
    desk.ok(&format!("animatediff data cache {rest} -o cache"));
    let train = format!("animatediff train motion {rest} {CACHED} --dry-run");
    desk.ok(&train);
    let (vae, text) = ("was made with another VAE", "was made with another text encoder or tokenizer");
    for (change, words) in [
        ("cp other/vae/*.safetensors base/vae/", vae),
        ("sed -i 's/\"norm_num_groups\": *[0-9]*/\"norm_num_groups\": 1/' base/vae/config.json", vae),
        ("cp other/text_encoder/*.safetensors base/text_encoder/", text),
        ("sed -i 's/\"num_attention_heads\": *[0-9]*/\"num_attention_heads\": 1/' base/text_encoder/config.json", text),
        ("sed -i 's/quick_gelu/gelu/' base/text_encoder/config.json", text),
        ("head -n -1 base/tokenizer/merges.txt > m; cp m base/tokenizer/merges.txt", text),
    ] {
        desk.ok(change);
        desk.refused(&train, &[words, "make it anew with `animatediff data cache`"]);
        desk.ok("rm -r base; cp -r $BASE base");
        desk.ok(&train);
    }
    // The UNet has no part in it, nor has the form in which weights are kept, nor where they lie.
    desk.ok("cp other/unet/*.safetensors base/unet/; mv base moved");
    desk.ok(&train.replace("path=base", "path=moved"));
}

#[test]
fn a_damaged_list_ends_the_work() {
    let desk = Desk::new();
    desk.ok("animatediff data index $SHAPES/clips.csv -o clips.index");
    let set = "-c $TINY --set train_data.csv_path=clips.index";
    desk.ok(&format!("animatediff data cache {set} -o cache"));
    let mut bytes = desk.bytes("clips.index");
    bytes[170] ^= 1;
    desk.write("clips.index", bytes);
    for line in
        [format!("data cache {set} -o new"), format!("train motion {set} {CACHED}"), format!("train motion {set}")]
    {
        desk.refused(&format!("animatediff {line}"), &["clips.index: damaged at row", "animatediff data index"]);
    }
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
    desk.refused("animatediff data cache -c $TINY -o new --stage vae", &["the VAE is trained on pixels"]);
    let whole = fs::read_to_string(desk.path("cache/cache.json")).unwrap();
    for (from, to) in
        [("\"sample_n_frames\": 4", "\"sample_n_frames\": 5"), ("\"shard_clips\": ", "\"shard_clips\": 0")]
    {
        assert!(whole.contains(from), "{whole}");
        desk.write("cache/cache.json", whole.replace(from, to));
        desk.fails(&format!("animatediff train motion -c $TINY {CACHED}"), 2, &["cache.json: ", "make the cache anew"]);
    }
    desk.write("cache/cache.json", &whole);
    let mut bytes = desk.bytes("cache/moments-00000.safetensors");
    *bytes.last_mut().unwrap() ^= 1;
    desk.write("cache/moments-00000.safetensors", &bytes);
    desk.refused(&format!("animatediff train motion -c $TINY {CACHED}"), &["its hash differs", "data cache` again"]);
    bytes.pop();
    desk.write("cache/moments-00000.safetensors", &bytes);
    desk.refused(&format!("animatediff train motion -c $TINY {CACHED}"), &["bytes are expected"]);
}
