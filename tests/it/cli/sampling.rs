//! Sampling: noise, scales, settings, formats, and the golden clip through the command line.

use std::{collections::BTreeMap, fs};

use image::{AnimationDecoder, GenericImageView};
use tch::{Kind, Tensor};

use super::{support::Desk, training::gif_frames};
use crate::support::{Golden, OUTPUT, assert_close, relative_error, write};

/// Two quick steps of a moving golden model.
fn quick(rest: &str) -> String {
    format!("animatediff sample --base $GOLD --motion $V2 --prompt 'a red ball' --steps 2 -W 64 -H 64 -L 2 {rest}")
}

fn noise(desk: &Desk, name: &str, noise: Tensor) {
    write(&desk.path(name), [("latents".to_owned(), noise)]);
}

#[test]
fn a_seed_means_what_it_means_to_pytorch() {
    let desk = Desk::new();
    let golden = Golden::load("noise");
    for seed in ["7", "9223372036854775819"] {
        noise(&desk, "noise", golden.get(&format!("seed_{seed}")));
        desk.ok(&quick(&format!("--seed {seed} --save-latents drawn -o a.gif --overwrite")));
        desk.ok(&quick("--latents noise --save-latents given -o b.gif --overwrite"));
        assert_eq!(desk.bytes("drawn"), desk.bytes("given"), "seed {seed}");
        assert_eq!(desk.bytes("a.gif"), desk.bytes("b.gif"));
    }
}

#[test]
fn a_seed_repeats_its_bytes_and_others_do_not() {
    let desk = Desk::new();
    for (seed, name) in [("1", "a"), ("1", "b"), ("2", "c"), ("-1", "d"), ("-1", "e")] {
        desk.ok(&quick(&format!("--seed {seed} -o {name}.gif")));
    }
    assert_eq!(desk.bytes("a.gif"), desk.bytes("b.gif"));
    assert_ne!(desk.bytes("a.gif"), desk.bytes("c.gif"));
    assert_ne!(desk.bytes("d.gif"), desk.bytes("e.gif"), "-1 draws a seed");
}

#[test]
fn settings_repeat_the_clip() {
    let desk = Desk::new();
    for seed in ["-1", "18446744073709551615"] {
        desk.ok(&quick(&format!(
            "--seed {seed} --adapter $ADAPTER --adapter-scale 0.5 --motion-lora $LORA:0.7 --motion-norm clip --fps 5 \
             --guidance-scale 3.5 --negative-prompt bad -o first.gif --overwrite"
        )));
        desk.ok("animatediff sample -c first.gif.yaml -o again.gif --overwrite");
        assert_eq!(desk.bytes("first.gif"), desk.bytes("again.gif"), "seed {seed}");
    }
    let settings = String::from_utf8(desk.bytes("first.gif.yaml")).unwrap();
    assert!(settings.starts_with("# animatediff sample -c first.gif.yaml\n"), "{settings}");
    assert!(settings.contains("18446744073709551615"), "{settings}");
}

#[test]
fn settings_repeat_a_clip_from_given_noise() {
    let desk = Desk::new();
    noise(&desk, "noise", Tensor::randn([2, 4, 2, 8, 8], (Kind::Float, tch::Device::Cpu)));
    desk.ok(&quick("--prompt 'a box' --latents noise --dtype bf16 -o clips"));
    for name in ["0-a-red-ball.gif", "1-a-box.gif"] {
        desk.ok(&format!("animatediff sample -c clips/{name}.yaml -o again.gif --overwrite"));
        assert_eq!(desk.bytes(&format!("clips/{name}")), desk.bytes("again.gif"), "{name}");
    }
    desk.ok("animatediff sample -c clips/1-a-box.gif.yaml --dtype fp32 -o again.gif --overwrite");
    assert_ne!(desk.bytes("clips/1-a-box.gif"), desk.bytes("again.gif"), "the precision is part of the settings");
}

#[test]
fn final_latents_are_saved_and_go_in_again() {
    let desk = Desk::new();
    desk.ok(&quick("--prompt 'a box' --seed 1 --save-latents out -o a"));
    let latents = desk.latents("out");
    assert_eq!((latents.size(), latents.kind()), (vec![2, 4, 2, 8, 8], Kind::Float));
    desk.ok(&quick("--prompt 'a box' --latents out --save-latents out2 -o b"));
    assert!(relative_error(&desk.latents("out2"), &latents) > 1e-3);
    let three = quick("--prompt y --prompt z --latents out -o c");
    desk.refused(&three, &["--latents out: `latents` is [2, 4, 2, 8, 8]; at least 3 rows [C, F, h, w] are expected"]);
    let longer = quick("--prompt x --latents out -o c").replace("-L 2", "-L 3");
    desk.refused(&longer, &["--latents: a row is [1, 4, 2, 8, 8]", "[1, 4, 3, 8, 8]"]);
}

/// The final latents of a line.
fn latents(desk: &Desk, rest: &str) -> Tensor {
    desk.ok(&quick(&format!("--seed 1 --dtype fp32 --save-latents latents -o x.gif --overwrite {rest}")));
    desk.latents("latents")
}

#[test]
fn scales_scale() {
    let desk = Desk::new();
    let none = latents(&desk, "");
    assert_eq!(latents(&desk, "--adapter $ADAPTER --adapter-scale 0"), none);
    assert_eq!(latents(&desk, "--motion-lora $LORA:0"), none);
    let adapted = latents(&desk, "--adapter $ADAPTER");
    assert!(relative_error(&adapted, &none) > 1e-3);
    assert_eq!(latents(&desk, "--adapter $ADAPTER --adapter-scale 1"), adapted);
    assert!(relative_error(&latents(&desk, "--adapter $ADAPTER --adapter-scale 0.5"), &adapted) > 1e-3);
    let whole = latents(&desk, "--motion-lora $LORA");
    assert!(relative_error(&whole, &none) > 1e-3);
    let parts = latents(&desk, "--motion-lora $LORA:0.4 --motion-lora $LORA:0.6");
    assert_close("0.4 and 0.6", &parts, &whole, 1e-4);
    assert!(relative_error(&latents(&desk, "--motion-lora $LORA:0.4"), &whole) > 1e-3);
    let undone = latents(&desk, "--motion-lora $LORA --motion-lora $LORA:-1");
    assert_close("1 and -1", &undone, &none, 1e-4);
}

#[test]
fn norms_and_guidance() {
    let desk = Desk::new();
    let frame = latents(&desk, "");
    assert_eq!(latents(&desk, "--motion-norm frame"), frame);
    assert!(relative_error(&latents(&desk, "--motion-norm clip"), &frame) > 1e-5);
    assert!(relative_error(&latents(&desk, "--negative-prompt blue"), &frame) > 1e-5);
    let alone = latents(&desk, "--guidance-scale 1");
    assert_eq!(latents(&desk, "--guidance-scale 1 --negative-prompt blue"), alone);
    assert!(relative_error(&alone, &frame) > 1e-5);
    assert_eq!(latents(&desk, "--scheduler ddim"), frame);
}

#[test]
fn the_official_clip() {
    let desk = Desk::new();
    let golden = Golden::load("sampling");
    golden_noise(&desk, &golden);
    let line = |rest: &str| golden_line(&golden, rest);
    desk.ok(&line("--inference-config $CONFIGS/inference/inference-v3.yaml --save-latents out -o clips"));
    assert_close("official", &desk.latents("out"), &golden.get("out.official_latents"), OUTPUT);
    assert_eq!(
        desk.files().into_iter().filter(|name| name.starts_with("clips/")).collect::<Vec<_>>(),
        [
            "clips/0-a-red-circle-moving-to-the-left-on-a-white.gif",
            "clips/0-a-red-circle-moving-to-the-left-on-a-white.gif.yaml",
            "clips/1-zoom-in-beautiful-mountain-lake-at-sunset-8k-uhd-its.gif",
            "clips/1-zoom-in-beautiful-mountain-lake-at-sunset-8k-uhd-its.gif.yaml",
            "clips/sample.gif",
        ]
    );
}

#[test]
fn the_clip_of_diffusers() {
    let desk = Desk::new();
    let golden = Golden::load("sampling");
    golden_noise(&desk, &golden);
    let config = "{noise_scheduler_kwargs: {timestep_spacing: linspace, set_alpha_to_one: false}}";
    desk.write("diffusers.yaml", config);
    desk.ok(&golden_line(&golden, "--inference-config diffusers.yaml --motion-norm clip --save-latents out -o clips"));
    assert_close("diffusers", &desk.latents("out"), &golden.get("out.diffusers_latents"), OUTPUT);
}

#[test]
fn pictures_are_the_official_ones() {
    let desk = Desk::new();
    let golden = Golden::load("sampling");
    noise(&desk, "noise", golden.get("in.latents").narrow(0, 0, 1));
    let prompts: Vec<String> = serde_json::from_value(golden.json("prompts")).unwrap();
    desk.ok(&format!(
        "animatediff sample --base $GOLD --motion $V3 --latents noise --steps 5 -W 64 -H 64 -L 4 --dtype fp32 --prompt '{}' -o frames",
        prompts[0]
    ));
    for frame in 0..4 {
        let picture = image::open(desk.path(&format!("frames/000{frame}.png"))).unwrap().into_rgb8();
        let bytes = Tensor::from_slice(picture.as_raw()).view([64, 64, 3]).permute([2, 0, 1]).to_kind(Kind::Float);
        let expected = golden.get("out.official_video").select(0, 0).select(1, frame) * 255.0;
        let above = (expected - bytes).min_max_dim();
        // Cut to whole numbers: what was there is up to one level more, and rounding errors may cross a level.
        assert!(above.0 > -1e-2 && above.1 < 1.01, "frame {frame}: {above:?}");
    }
}

/// The least and the greatest value.
trait MinMax {
    fn min_max_dim(&self) -> (f64, f64);
}

impl MinMax for Tensor {
    fn min_max_dim(&self) -> (f64, f64) {
        (self.min().double_value(&[]), self.max().double_value(&[]))
    }
}

fn golden_noise(desk: &Desk, golden: &Golden) {
    noise(desk, "noise", golden.get("in.latents"));
}

/// The golden sampling of both prompts.
fn golden_line(golden: &Golden, rest: &str) -> String {
    let texts = |key: &str| serde_json::from_value::<Vec<String>>(golden.json(key)).unwrap();
    let flags = |flag: &str, texts: Vec<String>| -> String {
        texts.iter().map(|text| format!("{flag} '{}' ", text.replace('\'', r"'\''"))).collect()
    };
    format!(
        "animatediff sample --base $GOLD --motion $V3 --latents noise --steps 5 --guidance-scale 7.5 -W 64 -H 64 -L 4 --dtype fp32 {}{}{rest}",
        flags("--prompt", texts("prompts")),
        flags("--negative-prompt", texts("negative_prompts"))
    )
}

#[test]
fn jobs_take_lists_and_flags_go_before_them() {
    let desk = Desk::new();
    let job = "
- pretrained_model_path: $GOLD
  motion_module: $V2
  dreambooth_path: ''
  lora_model_path: ''
  adapter_lora_path: $ADAPTER
  adapter_lora_scale: 0.5
  motion_module_lora_configs:
    - {path: $LORA, alpha: 0.5}
  seed: [11, 9223372036854775819]
  steps: 2
  guidance_scale: 4
  W: 64
  H: 64
  L: 2
  prompt: [a ball, a box]
  n_prompt: bad
- {pretrained_model_path: $GOLD, motion_module: $V2, seed: 11, steps: 2, W: 64, H: 64, L: 2, prompt: a cone}
";
    desk.ok(&format!("cat > job.yaml <<END\n{job}\nEND\nanimatediff sample -c job.yaml -o clips --save-latents out"));
    assert_eq!(desk.latents("out").size(), [3, 4, 2, 8, 8]);
    let line = |prompt: &str, seed: &str| {
        format!(
            "animatediff sample --base $GOLD --motion $V2 --adapter $ADAPTER --adapter-scale 0.5 --motion-lora $LORA:0.5 \
             --steps 2 --guidance-scale 4 -W 64 -H 64 -L 2 --prompt '{prompt}' --seed {seed} --negative-prompt bad \
             -o one.gif --overwrite"
        )
    };
    for (clip, prompt, seed) in [("0-a-ball", "a ball", "11"), ("1-a-box", "a box", "9223372036854775819")] {
        desk.ok(&line(prompt, seed));
        assert_eq!(desk.bytes(&format!("clips/{clip}.gif")), desk.bytes("one.gif"), "{clip}");
    }
    assert_eq!(gif_frames(&desk.bytes("clips/sample.gif")), (2, 3 * 66 + 2, 66 + 2), "an overview of all three");
    desk.ok(
        "animatediff sample -c job.yaml --seed 1 --prompt 'a pipe' --adapter $ADAPTER --steps 1 -o flags --overwrite",
    );
    let settings = String::from_utf8(desk.bytes("flags/0-a-pipe.gif.yaml")).unwrap();
    for expected in ["- a pipe", "  steps: 1", "  - 1", "guidance_scale: 4.0"] {
        assert!(settings.contains(expected), "{settings}");
    }
    let count = "animatediff sample -c job.yaml --prompt a --prompt b --seed 1 --seed 2 --seed 3 -o x";
    desk.refused(count, &["3 values of `seed` for 2 prompts; give one, or one for each"]);
}

#[test]
fn clips_come_back_from_every_format() {
    let desk = Desk::new();
    let line = |rest: &str| {
        format!(
            "animatediff sample --base $GOLD --motion $V2 --prompt x --seed 1 --steps 1 -W 48 -H 32 -L 3 --fps 5 {rest}"
        )
    };
    desk.ok(&line("-o clip.gif"));
    assert_eq!(gif_frames(&desk.bytes("clip.gif")), (3, 48, 32));
    desk.ok(&line("-o frames/"));
    let mut expected = vec!["clip.gif", "clip.gif.yaml", "frames.yaml"];
    expected.extend(["frames/0000.png", "frames/0001.png", "frames/0002.png"]);
    assert_eq!(desk.files(), expected);
    assert_eq!(image::open(desk.path("frames/0002.png")).unwrap().dimensions(), (48, 32));
    desk.ok(&line("-o frames/ --overwrite"));
    desk.ok("animatediff sample --base $GOLD --prompt x --steps 1 -W 48 -H 32 -o still.png");
    assert_eq!(image::open(desk.path("still.png")).unwrap().dimensions(), (48, 32));
    desk.ok("animatediff sample --base $GOLD --prompt x --prompt y --steps 1 -W 16 -H 16 -o two.png");
    assert!(desk.path("two-0-x.png").exists() && desk.path("two-1-y.png").exists());
    desk.refused(&line("-o still2.png"), &["still2.png: a PNG holds one frame and this clip has 3; use .gif"]);
    desk.refused(&line("-o clip.avi"), &["clip.avi: clips are not written as `.avi`; use .mp4"]);
    desk.ok("animatediff sample --base $GOLD --prompt x --steps 1 -W 16 -H 16 > told");
    let told = String::from_utf8(desk.bytes("told")).unwrap();
    assert!(told.starts_with("outputs/sample-") && told.ends_with("/0-x.gif\n"), "{told}");
    if cfg!(feature = "ffmpeg") {
        desk.ok(&line("-o clip.webp"));
        let bytes = desk.bytes("clip.webp");
        let webp = image::codecs::webp::WebPDecoder::new(std::io::Cursor::new(bytes)).unwrap();
        let frames = webp.into_frames().collect_frames().unwrap();
        assert_eq!((frames.len(), frames[2].buffer().dimensions()), (3, (48, 32)));
    }
}

#[cfg(feature = "ffmpeg")]
#[test]
fn an_mp4_comes_back() {
    let desk = Desk::new();
    desk.ok(&quick("-L 5 --fps 12 --seed 1 -o clips/clip.mp4").replace("-L 2 ", ""));
    let mut video = animatediff::video::Video::open(&desk.path("clips/clip.mp4")).unwrap();
    assert_eq!((video.len(), video.fps()), (5, 12.0));
    let frames = video.read(&[0, 4]).unwrap();
    assert_eq!((frames[1].width, frames[1].height), (64, 64));
}

#[test]
fn without_a_motion_module_a_still_is_made_at_the_models_own_size() {
    let desk = Desk::new();
    desk.ok("animatediff sample --base $BASE --prompt x --steps 1 -o still.png");
    assert_eq!(image::open(desk.path("still.png")).unwrap().dimensions(), (64, 64));
}

#[test]
fn long_prompts_and_long_clips_are_warned_about() {
    let desk = Desk::new();
    let words = "word ".repeat(100);
    let done = desk.run(&format!(
        "animatediff sample --base $GOLD --motion $V1 --prompt '{words}' --steps 1 -W 8 -H 8 -L 25 -o x.gif"
    ));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("warning: 25 frames are more than the 24 the motion module was made for"));
    assert!(done.stderr.contains("tokens longer than what the model reads"), "{}", done.stderr);
}

#[test]
fn the_same_weights_in_half_precision_load() {
    let desk = Desk::new();
    for dtype in ["fp16", "bf16"] {
        desk.ok(&format!("animatediff init --dtype {dtype} {dtype}"));
        let line = format!("animatediff sample --base {dtype} --prompt x --steps 1 -W 64 -H 64 -o {dtype}.png");
        desk.ok(&line);
        let found = desk.ok(&format!("animatediff inspect {dtype}/vae/diffusion_pytorch_model.safetensors --json"));
        let found: BTreeMap<String, serde_json::Value> = serde_json::from_str(&found).unwrap();
        assert_eq!(
            found["types"].as_object().unwrap().keys().collect::<Vec<_>>(),
            [match dtype {
                "fp16" => "F16",
                _ => "BF16",
            }]
        );
    }
    assert!(fs::metadata(desk.path("fp16.png")).unwrap().len() > 100);
}

#[test]
fn memory_that_runs_out_in_any_thread_is_told_of() {
    let line = "animatediff sample --base $BASE --prompt x --steps 1 -W 2048 -H 2048 -L 128 --dtype fp32 -o big.gif";
    for threads in [1, 2] {
        let line = format!("ulimit -v 3000000; OMP_NUM_THREADS={threads} {line}");
        Desk::new().fails(&line, 1, &["memory ran out: lower the batch size"]);
    }
}
