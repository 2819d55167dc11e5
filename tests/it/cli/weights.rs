//! Files of other tools through the program: what it samples with them is what diffusers samples, before and after they are
//! converted. `tests/golden/weights/exports.md` says how diffusers itself read what is written here.

use std::fs;

use serde_json::Value;
use tch::Tensor;

use super::support::Desk;
use crate::support::{Golden, assert_close, relative_error, tensors_of, write};

/// Final latents, of the largest magnitude; what the issue of formats allows.
const LATENTS: f64 = 1e-3;

/// A desk that samples as `tests/golden/weights/expected.safetensors` was.
struct Bench {
    desk: Desk,
    golden: Golden,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { desk: Desk::new(), golden: Golden::load("weights/expected") };
        let schedule = "{noise_scheduler_kwargs: {timestep_spacing: linspace, set_alpha_to_one: false}}";
        bench.desk.write("inference.yaml", schedule);
        for (name, key) in [("clip", "in.latents"), ("image", "in.image_latents")] {
            write(&bench.desk.path(name), [("latents".to_owned(), bench.golden.get(key))]);
        }
        bench
    }

    fn ok(&self, line: &str) -> String {
        self.desk.ok(&line.replace("$W", "$GOLD/../weights"))
    }

    /// Final latents of `sample` with `options`.
    fn sample(&self, options: &str, frames: i64) -> Tensor {
        let quoted = |key: &str| {
            let text = serde_json::from_value::<Vec<String>>(self.golden.json(key)).unwrap().remove(0);
            text.replace('\'', r"'\''")
        };
        let start = if frames > 1 { "--latents clip --motion-norm clip" } else { "--latents image" };
        let base = if options.contains("--base") { "" } else { "--base $GOLD" };
        let config = self.golden.json("config");
        let number = |key: &str| match &config[key] {
            Value::Number(number) => number.to_string(),
            other => panic!("{key}: {other}"),
        };
        self.ok(&format!(
            "animatediff sample {base} {options} {start} -L {frames} -W {side} -H {side} --steps {} --guidance-scale {} \
             --prompt '{}' --negative-prompt '{}' --inference-config inference.yaml --dtype fp32 --save-latents out \
             -o clip.gif --overwrite",
            number("steps"),
            number("guidance"),
            quoted("prompts"),
            quoted("negative_prompts"),
            side = number("side"),
        ));
        self.desk.latents("out")
    }

    /// Compares what `options` sample with what diffusers sampled as `out.<name>`.
    #[track_caller]
    fn compare(&self, name: &str, options: &str) {
        let want = self.golden.get(&format!("out.{name}"));
        assert_close(&format!("{name} by {options}"), &self.sample(options, want.size()[2]), &want, LATENTS);
    }
}

const V2: &str = "--motion $V2";
const V3: &str = "--motion $V3";

#[test]
fn files_of_other_tools_sample_as_in_diffusers() {
    let bench = Bench::new();
    bench.compare("ldm", "");
    bench.compare("motion_v2", V2);
    bench.compare("motion_v3", V3);
    bench.compare("motion_adapter", "--motion $W/motion_adapter");
    bench.compare("motion_adapter_exact_pe", "--motion $W/motion_adapter/diffusion_pytorch_model.safetensors");
    bench.compare("motion_lora", &format!("{V2} --motion-lora $LORA:0.8"));
    bench.compare(
        "old_diffusers_motion_lora",
        &format!("{V2} --motion-lora $W/old_diffusers_motion_lora.safetensors:0.8"),
    );
    bench.compare("adapter", &format!("{V3} --adapter $ADAPTER --adapter-scale 0.7"));
    bench.compare("kohya", "--lora $W/kohya.safetensors:0.6");
    bench.compare("kohya_ldm", "--lora $W/kohya_ldm.safetensors:0.9");
    bench.compare("kohya_motion", &format!("{V3} --lora $W/kohya.safetensors:0.6"));
    bench.compare("diffusers_lora", "--lora $W/diffusers_lora.safetensors:0.8");
    bench.compare("diffusers_lora_script", "--lora $W/diffusers_lora_script.safetensors:0.8");
    bench.compare("diffusers_lora_motion", &format!("{V3} --lora $W/diffusers_lora.safetensors:0.8"));
}

#[test]
fn converted_files_sample_the_same() {
    let bench = Bench::new();
    for (line, expected, options) in [
        ("$V2 adapter --to diffusers", "motion_v2", "--motion adapter"),
        ("adapter official.safetensors --to official", "motion_v2", "--motion official.safetensors"),
        ("adapter one_file.safetensors --dtype fp32", "motion_v2", "--motion one_file.safetensors"),
        ("$LORA ml.safetensors --to diffusers", "motion_lora", "--motion $V2 --motion-lora ml.safetensors:0.8"),
        ("ml.safetensors mk.safetensors --to kohya", "motion_lora", "--motion $V2 --motion-lora mk.safetensors:0.8"),
        ("mk.safetensors mp --to peft", "motion_lora", "--motion $V2 --motion-lora mp:0.8"),
        ("mp mo.safetensors --to official", "motion_lora", "--motion $V2 --motion-lora mo.safetensors:0.8"),
        ("$V2 merged.safetensors --merge $LORA:0.8", "motion_lora", "--motion merged.safetensors"),
        (
            "$ADAPTER ad.safetensors --to diffusers",
            "adapter",
            "--motion $V3 --adapter ad.safetensors --adapter-scale 0.7",
        ),
        (
            "ad.safetensors ak.safetensors --to kohya",
            "adapter",
            "--motion $V3 --adapter ak.safetensors --adapter-scale 0.7",
        ),
        ("ak.safetensors ap --to peft", "adapter", "--motion $V3 --lora ap:0.7"),
        ("$W/kohya.safetensors kd.safetensors --to diffusers --dtype fp32", "kohya", "--lora kd.safetensors:0.6"),
        ("kd.safetensors kk.safetensors --to kohya", "kohya", "--lora kk.safetensors:0.6"),
        ("$W/diffusers_lora.safetensors dk.safetensors --to kohya", "diffusers_lora", "--lora dk.safetensors:0.8"),
        ("$GOLD whole.safetensors --to ldm", "ldm", "--base whole.safetensors"),
        ("whole.safetensors folder --to diffusers --base $GOLD", "ldm", "--base folder"),
        ("folder merged_folder --merge $W/kohya.safetensors:0.6", "kohya", "--base merged_folder"),
        (
            "whole.safetensors merged_file.safetensors --merge $W/kohya.safetensors:0.6",
            "kohya",
            "--base merged_file.safetensors",
        ),
        ("$GOLD/unet unet.safetensors --to ldm", "ldm", "--dreambooth unet.safetensors"),
        ("$GOLD/vae vae.safetensors --to ldm", "ldm", "--vae vae.safetensors"),
    ] {
        bench.ok("ln -sfn $GOLD/tokenizer tokenizer");
        bench.ok(&format!("animatediff convert {line}"));
        bench.compare(expected, options);
    }
}

/// The sum of files is what they do together, exactly and at the rank that holds all of it; a lower one says what it costs.
#[test]
fn merged_motion_loras() {
    let bench = Bench::new();
    let sum = "animatediff convert $LORA sum.safetensors --merge $LORA:0.5 --merge $W/old_diffusers_motion_lora.safetensors:-0.75";
    bench.ok(sum);
    let shape = tensors_of(&bench.desk.path("sum.safetensors")).into_values().next().unwrap().size();
    assert!(shape.contains(&12), "{shape:?}");
    let want = bench.sample(&format!("{V2} --motion-lora $LORA:0.75"), 4);
    let exact = bench.sample(&format!("{V2} --motion-lora sum.safetensors"), 4);
    assert!(relative_error(&exact, &want) < 2e-3, "half precision in one of them: {}", relative_error(&exact, &want));
    let done =
        bench.desk.run(&sum.replace("$W", "$GOLD/../weights").replace("sum.safetensors", "four.safetensors --rank 4"));
    assert!(done.stderr.contains("UNet: rank 4 is 0.0"), "{}", done.stderr);
    let four = bench.sample(&format!("{V2} --motion-lora four.safetensors"), 4);
    assert!(relative_error(&four, &exact) < 2e-3);
    let done = bench.desk.run("animatediff convert $LORA one.safetensors --rank 1");
    let note = done.stderr.lines().find(|line| line.contains("rank 1 is")).unwrap();
    let percent: f64 = note.split("rank 1 is ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((20.0..90.0).contains(&percent), "{note}");
}

#[test]
fn embeddings_are_used_by_name() {
    let bench = Bench::new();
    bench.ok("cp $W/embedding_a1111.pt pickled.pt; cp $W/embedding_a1111.safetensors easy.safetensors");
    let sample = |options: &str, prompt: &str| {
        bench.ok(&format!(
            "animatediff sample --base $GOLD {options} --prompt '{prompt}' --latents image --steps 2 --save-latents out \
             -o x.png --overwrite -W 64 -H 64"
        ));
        bench.desk.latents("out")
    };
    let plain = sample("", "a photo of EASY, blue");
    let used = sample("--embedding easy.safetensors", "a photo of EASY, blue");
    assert!(relative_error(&used, &plain) > 1e-4);
    assert_eq!(sample("--embedding easy.safetensors", "a photo of easyish"), sample("", "a photo of easyish"));
    let pickled = sample("--embedding pickled.pt", "a photo of pickled, blue");
    assert!(relative_error(&pickled, &sample("", "a photo of pickled, blue")) > 1e-4);
    let cat = "--embedding $W/embedding_diffusers.safetensors";
    assert!(relative_error(&sample(cat, "a <cat-toy> there"), &sample("", "a <cat-toy> there")) > 1e-4);
    bench.ok("animatediff convert pickled.pt toy.safetensors --to a1111");
    let renamed = sample("--embedding toy.safetensors", "a photo of toy, blue");
    assert!(relative_error(&renamed, &pickled) < 1e-6, "the same vectors under another name");
    bench.desk.refused(
        "animatediff sample --base $GOLD --embedding $GOLD/../motion_v2.safetensors --prompt x -o y.png",
        &["this is a motion module, and a textual-inversion embedding is expected; give it with --motion"],
    );
}

#[test]
fn alpha_can_be_left_out_as_the_official_loader_does() {
    let bench = Bench::new();
    let lora = "--lora $W/kohya.safetensors";
    let half = bench.sample(&format!("{lora}:0.3 --lora-ignore-alpha"), 1);
    let kohyas = bench.sample(&format!("{lora}:0.3"), 1);
    assert!(relative_error(&half, &kohyas) > 1e-3);
    // Rank 4 and alpha 2: for these layers twice the scale is the same.
    bench.ok("animatediff convert $W/diffusers_lora_script.safetensors k.safetensors --to kohya --dtype fp32");
    let same =
        [bench.sample("--lora k.safetensors:0.4", 1), bench.sample("--lora k.safetensors:0.4 --lora-ignore-alpha", 1)];
    assert_eq!(same[0], same[1], "alpha is the rank here");
}

#[test]
fn conversions_that_are_refused() {
    let desk = Desk::new();
    let convert = |rest: &str, words: &[&str]| {
        desk.refused(&format!("animatediff convert {rest}").replace("$W", "$GOLD/../weights"), words);
    };
    convert("$V2 x.ckpt --to official", &["only safetensors are written"]);
    convert(
        "$V2 x.safetensors --to ldm",
        &["is a motion module, which has no form of --to ldm; choose from: official, diffusers"],
    );
    convert("$V2 folder --to official", &["folder: an official motion module is one file"]);
    convert(
        "$W/kohya.safetensors x.safetensors --to official",
        &["have no name in the format `low-rank pairs (official)`"],
    );
    convert("$W/lycoris.safetensors x.safetensors --to diffusers", &["is a Lo", "which is no pair of factors"]);
    convert("$V2 x.safetensors --merge $ADAPTER", &["this is a domain adapter, and a MotionLoRA is expected"]);
    convert("$V2 x.safetensors --rank 3", &["--rank is about low-rank files"]);
    convert("$GOLD x.safetensors --to safetensors", &["choose --to ldm or --to diffusers"]);
    convert("$GOLD x --ema", &["--ema is about"]);
    convert("absent.safetensors x.safetensors --to official", &["absent.safetensors: cannot be opened"]);
    desk.ok("animatediff convert $V2 x.safetensors --dtype fp16");
    convert("$V2 x.safetensors", &["x.safetensors: exists already", "--overwrite"]);
    fs::create_dir(desk.path("own")).unwrap();
    desk.write("own/notes.txt", "mine");
    convert("$V2 own --to diffusers --overwrite", &["own: is not replaced, as it is no model's folder"]);
    assert_eq!(desk.bytes("own/notes.txt"), b"mine");
    assert!(desk.files().iter().all(|name| !name.contains("partial")), "{:?}", desk.files());
}
