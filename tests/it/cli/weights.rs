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
    convert("$V2 x.safetensors --rank 3", &["--rank does nothing to a motion module"]);
    convert("$GOLD x.safetensors --to safetensors", &["choose --to ldm or --to diffusers"]);
    convert("$GOLD x --ema", &["--ema is about checkpoints in one file"]);
    convert("$GOLD x --drop-unknown", &["--drop-unknown does nothing to a base's folder"]);
    convert("$LORA x.safetensors --to safetensors --rank 2", &["--rank does nothing to a file whose names stay"]);
    convert("$ADAPTER x.safetensors --base $GOLD", &["--base does nothing to a LoRA"]);
    convert("absent.safetensors x.safetensors --to official", &["absent.safetensors: cannot be opened"]);
    desk.ok("animatediff convert $V2 x.safetensors --dtype fp16");
    convert("$V2 x.safetensors", &["x.safetensors: exists already", "--overwrite"]);
    fs::create_dir(desk.path("own")).unwrap();
    desk.write("own/notes.txt", "mine");
    convert(
        "$V2 own --to diffusers --overwrite",
        &["own: is not replaced, as own/notes.txt is no part of a model's folder"],
    );
    assert_eq!(desk.bytes("own/notes.txt"), b"mine");
    assert!(desk.files().iter().all(|name| !name.contains("partial")), "{:?}", desk.files());
}

/// Averaged weights are left alone unless they are asked for.
#[test]
fn averaged_weights() {
    let bench = Bench::new();
    bench.ok("animatediff convert $GOLD plain.safetensors --to ldm");
    let mut tensors = tensors_of(&bench.desk.path("plain.safetensors"));
    let averaged: Vec<(String, Tensor)> = tensors
        .iter()
        .filter(|(name, _)| name.starts_with("model.diffusion_model."))
        .map(|(name, tensor)| {
            (format!("model_ema.{}", name.trim_start_matches("model.").replace('.', "")), tensor * 0.5)
        })
        .collect();
    tensors.extend(averaged);
    tensors.insert("model_ema.decay".into(), Tensor::from(0.9999f32));
    write(&bench.desk.path("both.safetensors"), tensors);
    let unet =
        |folder: &str| tensors_of(&bench.desk.path(&format!("{folder}/unet/diffusion_pytorch_model.safetensors")));
    bench.ok("animatediff convert both.safetensors usual --to diffusers --base $GOLD");
    bench.ok("animatediff convert both.safetensors ema --to diffusers --base $GOLD --ema");
    let (usual, ema) = (unet("usual"), unet("ema"));
    assert_eq!(usual.len(), ema.len());
    assert!(usual.iter().all(|(name, tensor)| tensor * 0.5 == ema[name]));
    bench.ok("animatediff convert both.safetensors ema.safetensors --ema");
    assert!(tensors_of(&bench.desk.path("ema.safetensors")).keys().all(|name| !name.starts_with("model_ema.")));
    bench.desk.refused(
        "animatediff convert plain.safetensors none.safetensors --ema",
        &["--ema: the file has no averaged weights of `model.diffusion_model."],
    );
}

#[test]
fn unknown_keys_can_be_dropped_and_are_listed() {
    let bench = Bench::new();
    bench.ok("animatediff convert $GOLD whole.safetensors --to ldm");
    let mut tensors = tensors_of(&bench.desk.path("whole.safetensors"));
    tensors.insert("v_pred".into(), Tensor::from(1f32));
    write(&bench.desk.path("more.safetensors"), tensors);
    bench.desk.refused(
        "animatediff sample --base more.safetensors --prompt x -o x.png",
        &["1 of 966 keys are unknown", "`v_pred`"],
    );
    let mend = report(&bench, "more.safetensors")["mend"].as_str().unwrap().to_owned();
    assert_eq!(mend, "animatediff convert more.safetensors OUT.safetensors --drop-unknown");
    let done = bench.desk.run(&mend);
    assert!(done.stderr.contains("1 unknown tensors were left out: v_pred"), "{}", done.stderr);
    bench.compare("ldm", "--base $GOLD --dreambooth OUT.safetensors");
    let done = bench.desk.run("animatediff convert $GOLD/unet u --merge $GOLD/../weights/kohya.safetensors");
    assert!(done.stderr.contains("layers of the text encoder were left out"), "{}", done.stderr);
}

/// What a personalised model lacks comes from the base, and that is said.
#[test]
fn parts_that_a_checkpoint_lacks() {
    let bench = Bench::new();
    bench.ok("animatediff convert $GOLD whole.safetensors --to ldm");
    let whole = tensors_of(&bench.desk.path("whole.safetensors"));
    let pruned = whole.into_iter().filter(|(name, _)| name.starts_with("model.diffusion_model."));
    write(&bench.desk.path("pruned.safetensors"), pruned.map(|(name, tensor)| (name, tensor * 0.9)));
    let line = "animatediff sample --prompt x --seed 1 --steps 1 -W 64 -H 64 --save-latents out -o x.png --overwrite";
    let done = bench.desk.run(&format!("{line} --base $GOLD --dreambooth pruned.safetensors"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for part in ["VAE", "text encoder"] {
        assert!(done.stderr.contains(&format!("note: pruned.safetensors has no {part}: that of ")), "{}", done.stderr);
    }
    let personal = bench.desk.latents("out");
    bench.ok(&format!("{line} --base $GOLD"));
    assert!(relative_error(&personal, &bench.desk.latents("out")) > 1e-4);
    let words =
        ["pruned.safetensors: ", "it has no VAE; give a complete base with --base, and this file with --dreambooth"];
    bench.desk.refused(&format!("{line} --base pruned.safetensors"), &words);
    bench.desk.refused(&format!("{line} --base $V2"), &["this is a motion module, and a base model"]);
    bench.desk.refused(&format!("{line} --base $GOLD --dreambooth $LORA"), &["this is a MotionLoRA"]);
    bench.desk.refused(&format!("{line} --base $GOLD --vae $V2"), &["this is a motion module, and a VAE is expected"]);
}

/// Whichever tensor is missing, a file is not whole: also one that the sizes are told by.
#[test]
fn no_tensor_can_be_missed() {
    let desk = Desk::new();
    let files = [
        "motion_v2.safetensors",
        "base/unet/diffusion_pytorch_model.safetensors",
        "base/vae/diffusion_pytorch_model.safetensors",
        "base/text_encoder/model.safetensors",
    ];
    let path = desk.path("short.safetensors");
    for file in files {
        let whole = tensors_of(&crate::support::golden_path(file));
        let told_by = |name: &&String| {
            ["norm.weight", "conv2.weight", "fc1.weight", "embedding.weight"].iter().any(|end| name.ends_with(end))
        };
        let some = whole
            .keys()
            .filter(|name| !name.ends_with(".pe"))
            .step_by(37)
            .chain(whole.keys().filter(told_by).step_by(3));
        for left_out in some {
            let others = whole.iter().filter(|(name, _)| *name != left_out);
            write(&path, others.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
            let found = animatediff::inspect::inspect(&path).unwrap().remove(0);
            assert!(!found.missing.is_empty() || !found.misshapen.is_empty(), "{file} without {left_out}");
            assert!(found.usage.is_none(), "{file} without {left_out}");
        }
    }
}

/// The fields of `inspect --json`.
fn report(bench: &Bench, file: &str) -> Value {
    serde_json::from_str(&bench.ok(&format!("animatediff inspect {file} --json"))).unwrap()
}

#[test]
fn inspecting_tells_what_a_file_is() {
    let bench = Bench::new();
    for (file, fields) in [
        ("$V2", r#"{"kind": "a motion module", "dialect": "official", "version": "v2", "tensors": 588}"#),
        ("$V1", r#"{"kind": "a motion module", "version": "v1"}"#),
        (
            "$W/motion_adapter",
            r#"{"kind": "a motion module", "dialect": "diffusers", "version": "v3", "types": {"F16": 540}}"#,
        ),
        ("$LORA", r#"{"kind": "a MotionLoRA", "dialect": "official", "rank": "4", "alpha": "4", "tensors": 336}"#),
        ("$ADAPTER", r#"{"kind": "a domain adapter", "rank": "4", "parameters": 27264}"#),
        ("$W/kohya.safetensors", r#"{"kind": "a LoRA", "dialect": "kohya", "rank": "2 to 4", "alpha": "1.5 to 2"}"#),
        (
            "$W/diffusers_lora.safetensors",
            r#"{"kind": "a LoRA", "dialect": "diffusers", "rank": "2 to 4", "alpha": "3 to 6"}"#,
        ),
        (
            "$W/embedding_a1111.pt",
            r#"{"kind": "a textual-inversion embedding", "dialect": "a1111", "container": "pickle"}"#,
        ),
        ("$GOLD/vae", r#"{"kind": "a VAE", "dialect": "diffusers", "missing": [], "unknown": []}"#),
    ] {
        let (found, fields) = (report(&bench, file), serde_json::from_str::<Value>(fields).unwrap());
        for (key, want) in fields.as_object().unwrap() {
            assert_eq!(&found[key], want, "{file}: {key} of {found:#}");
        }
        assert!(found["usage"].as_str().is_some_and(|usage| usage.starts_with("sample --")), "{found:#}");
    }
    assert_eq!(report(&bench, "$GOLD").as_array().unwrap().len(), 3, "every part of a base");
}

#[test]
fn inspecting_tells_what_is_wrong() {
    let bench = Bench::new();
    let module = || tensors_of(&crate::support::golden_path("motion_v2.safetensors"));
    let name = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight".to_owned();
    let mut lacking = module();
    let tensor = lacking.remove(&name).unwrap();
    lacking.insert(name.replace("proj_in", "proj_inn"), tensor);
    write(&bench.desk.path("lacking.safetensors"), lacking);
    let found = report(&bench, "lacking.safetensors");
    assert_eq!(found["unknown"][0]["name"], name.replace("proj_in", "proj_inn"));
    assert_eq!(found["unknown"][0]["nearest"], name.as_str(), "what it was meant to be");
    assert_eq!(found["missing"][0], "down_blocks.0.motion_modules.0.proj_in.weight");
    assert!(found["usage"].is_null(), "it loads nowhere: {found:#}");

    let mut broken = module();
    broken.insert(name.clone(), &broken[&name] * f64::NAN);
    write(&bench.desk.path("nan.safetensors"), broken);
    assert_eq!(report(&bench, "nan.safetensors")["not_finite"][0], name.as_str());

    write(
        &bench.desk.path("ddp.safetensors"),
        module().into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)),
    );
    let mend = report(&bench, "ddp.safetensors")["mend"].as_str().unwrap().to_owned();
    assert_eq!(mend, "animatediff convert ddp.safetensors OUT.safetensors --to official");
    bench.ok(&mend);
    assert_eq!(
        tensors_of(&bench.desk.path("OUT.safetensors")).keys().collect::<Vec<_>>(),
        module().keys().collect::<Vec<_>>()
    );
    let old =
        bench.desk.refused("animatediff inspect $GOLD/../pickle/legacy.pt", &["as PyTorch saved before version 1.6"]);
    assert!(old.contains("save it again"), "{old}");
}

#[test]
fn what_a_file_says_of_itself_is_carried_along() {
    let bench = Bench::new();
    let run = bench.desk.train("adapter -c $TINY --base $GOLD");
    let metadata = run.metadata();
    for (key, value) in [
        ("animatediff.stage", "adapter"),
        ("animatediff.rank", "4"),
        ("animatediff.steps", "2"),
        ("animatediff.data", "clips.csv"),
        ("ss_network_dim", "4"),
        ("ss_steps", "2"),
        ("modelspec.architecture", "stable-diffusion-v1/lora"),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    bench.ok(&format!("animatediff convert {} kohya.safetensors --to kohya", run.export.display()));
    let carried = animatediff::weights::read(&bench.desk.path("kohya.safetensors")).unwrap().metadata;
    for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with("modelspec.")) {
        assert_eq!(&carried[key], value, "{key}");
    }
    // The hash is of the bytes behind the header.
    let bytes = bench.desk.bytes("kohya.safetensors");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&bytes[start..]);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(carried["modelspec.hash_sha256"], format!("0x{hash}"));
}

/// Strided views, shared storages, every type, and what trainers wrap weights in, out of pickles.
#[test]
fn pickles_become_safetensors() {
    let bench = Bench::new();
    for name in ["views", "module4", "parameters"] {
        bench.ok(&format!("animatediff convert $GOLD/../pickle/{name}.pt {name}.safetensors --to safetensors"));
        let want = tensors_of(&crate::support::golden_path(&format!("pickle/{name}.safetensors")));
        let got = tensors_of(&bench.desk.path(&format!("{name}.safetensors")));
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{name}");
        for (key, want) in want {
            assert_eq!((got[&key].kind(), got[&key].size()), (want.kind(), want.size()), "{name}: {key}");
            let numbers = |tensor: &Tensor| tensor.to_kind(tch::Kind::Double);
            assert_eq!(numbers(&got[&key]), numbers(&want), "{name}: {key}");
        }
    }
    let line = "animatediff convert $GOLD/../pickle/dtypes.pt x.safetensors --to safetensors";
    bench.desk.refused(line, &["dtypes.pt: `uint16` has type U16; this type is not read"]);
    let done = bench.desk.run("animatediff convert $GOLD/../pickle/lightning.pt l.safetensors --to safetensors");
    assert!(done.stderr.contains("names lost the prefix `state_dict.`"), "{}", done.stderr);
    assert!(done.stderr.contains("tensors beside the weights were left out"), "{}", done.stderr);
    assert!(tensors_of(&bench.desk.path("l.safetensors")).keys().all(|name| !name.starts_with("state_dict.")));
}

/// The tensors of a small ControlNet in diffusers' names: the golden UNet's way down, and layers of its own.
fn controlnet(condition: &[(&str, [i64; 4])]) -> std::collections::BTreeMap<String, Tensor> {
    let unet = tensors_of(&crate::support::golden_path("base/unet/diffusion_pytorch_model.safetensors"));
    let down = |name: &String| !["up_blocks.", "conv_out.", "conv_norm_out."].iter().any(|part| name.starts_with(part));
    let mut tensors: std::collections::BTreeMap<String, Tensor> =
        unet.into_iter().filter(|(name, _)| down(name)).collect();
    let mut layer = |name: String, shape: [i64; 4]| {
        let weight = Tensor::arange(shape.iter().product::<i64>(), (tch::Kind::Float, tch::Device::Cpu)).sin();
        tensors.insert(format!("{name}.bias"), weight.narrow(0, 0, shape[0]).contiguous());
        tensors.insert(format!("{name}.weight"), weight.view(shape));
    };
    for (index, width) in [16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 32, 32].into_iter().enumerate() {
        layer(format!("controlnet_down_blocks.{index}"), [width, width, 1, 1]);
    }
    layer("controlnet_mid_block".into(), [32, 32, 1, 1]);
    for (name, shape) in condition {
        layer(format!("controlnet_cond_embedding{name}"), *shape);
    }
    tensors
}

/// Converts there and back; every tensor comes back as it was.
fn there_and_back(bench: &Bench, first: &str, there: &str, back: &str) {
    bench.ok(&format!("animatediff convert {first} there.safetensors --to {there} --overwrite"));
    bench.ok(&format!("animatediff convert there.safetensors back.safetensors --to {back} --overwrite"));
    let [before, between, after] =
        [first, "there.safetensors", "back.safetensors"].map(|name| tensors_of(&bench.desk.path(name)));
    assert!(before.keys().ne(between.keys()), "the names are others");
    for (name, tensor) in &before {
        assert_eq!(&after[name], tensor, "{name}");
    }
    assert!(after.keys().all(|name| before.contains_key(name) || name.ends_with(".pe")), "{:?}", after.keys());
}

#[test]
fn controlnets_and_sparse_encoders_go_both_ways() {
    let bench = Bench::new();
    let hint = [
        (".conv_in", [16, 3, 3, 3]),
        (".blocks.0", [16, 16, 3, 3]),
        (".blocks.1", [32, 16, 3, 3]),
        (".blocks.2", [32, 32, 3, 3]),
        (".blocks.3", [96, 32, 3, 3]),
        (".blocks.4", [96, 96, 3, 3]),
        (".blocks.5", [256, 96, 3, 3]),
        (".conv_out", [16, 256, 3, 3]),
    ];
    write(&bench.desk.path("controlnet.safetensors"), controlnet(&hint));
    there_and_back(&bench, "controlnet.safetensors", "ldm", "diffusers");
    assert!(tensors_of(&bench.desk.path("there.safetensors")).keys().all(|name| name.starts_with("control_model.")));

    let module = tensors_of(&crate::support::golden_path("motion_v2.safetensors")).into_iter();
    let one = module.filter(|(name, _)| {
        name.starts_with("down_blocks.")
            && ![".attention_blocks.1.", ".norms.1."].iter().any(|part| name.contains(part))
    });
    let mut sparse = controlnet(&[("", [16, 5, 3, 3])]);
    sparse.extend(one.filter(|(name, _)| !name.ends_with(".pe")));
    write(
        &bench.desk.path("sparse.safetensors"),
        sparse.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())),
    );
    there_and_back(&bench, "sparse.safetensors", "diffusers", "official");
    for (file, kind) in [("controlnet.safetensors", "a ControlNet"), ("sparse.safetensors", "a SparseCtrl encoder")] {
        let found = report(&bench, file);
        assert_eq!((&found["kind"], found["usage"].is_null()), (&Value::from(kind), true), "{found:#}");
    }
    sparse.remove("controlnet_mid_block.weight");
    write(&bench.desk.path("short.safetensors"), sparse);
    let words = ["short.safetensors: it is not whole: 1 tensors are missing, first controlnet_mid_block.weight"];
    bench.desk.refused("animatediff convert short.safetensors x.safetensors --to diffusers", &words);
}
