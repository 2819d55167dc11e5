//! Configurations: every file that is shipped, the official ones, and what is said about mistakes.

use std::{collections::BTreeSet, fs, path::Path};

use super::support::{Desk, shared};

#[test]
fn every_training_configuration_loads_and_prints_itself() {
    let desk = Desk::new();
    let own = ["adapter", "image", "motion", "motionlora", "vae"].map(|stage| ("training", stage, stage));
    let world = own.map(|(_, stage, file)| ("shapes", stage, file));
    let style = ("shapes", "image", "style");
    for (folder, stage, file) in own.into_iter().chain(world).chain([style]) {
        let printed = desk.ok(&format!("animatediff train {stage} -c $CONFIGS/{folder}/{file}.yaml --print-config"));
        desk.write("printed.yaml", &printed);
        let again = desk.ok(&format!("animatediff train {stage} -c printed.yaml --print-config"));
        assert_eq!(again, printed, "{folder}/{file}");
    }
    assert_eq!(names("training"), own.map(|(_, _, file)| format!("{file}.yaml")));
    assert_eq!(names("shapes").len(), 6);
}

#[test]
fn every_inference_configuration_samples_its_module() {
    let desk = Desk::new();
    for version in ["v1", "v2", "v3"] {
        let module = version.to_uppercase();
        let line = |rest: &str| {
            format!(
                "animatediff sample --base $GOLD --motion ${module} --prompt x --seed 1 --steps 1 -W 16 -H 16 -L 2 {rest}"
            )
        };
        let config = format!("--inference-config $CONFIGS/inference/inference-{version}.yaml");
        desk.ok(&line(&format!("{config} --save-latents told -o told.gif --overwrite")));
        desk.ok(&line("--save-latents found -o found.gif --overwrite"));
        assert_eq!(desk.bytes("told"), desk.bytes("found"), "{version}: the module's file says the same");
    }
    assert_eq!(names("inference"), ["inference-v1.yaml", "inference-v2.yaml", "inference-v3.yaml"]);
}

#[test]
fn every_prompt_file_reaches_its_models() {
    for name in names("prompts") {
        let desk = Desk::new();
        // Its models are not here; the file itself is read before they are.
        let line = format!("animatediff sample -c $CONFIGS/prompts/{name} -o out");
        desk.refused(&line, &["models/stable-diffusion-v1-5: not a base model: there is no such folder"]);
        let text = fs::read_to_string(Path::new(&shared()["CONFIGS"]).join("prompts").join(&name)).unwrap();
        desk.write("bad.yaml", text.replace("guidance_scale", "guidence_scale"));
        desk.refused("animatediff sample -c bad.yaml -o out", &["bad.yaml:", "guidence_scale", "guidance_scale"]);
    }
}

#[test]
fn official_files_load_unchanged() {
    let desk = Desk::new();
    let printed = desk.ok("animatediff train motion -c $OFFICIAL/training.yaml --print-config");
    for expected in [
        "image_finetune: false",
        "  use_inflated_groupnorm: false",
        "  motion_module_mid_block: false",
        "    temporal_position_encoding_max_len: 24",
        "  beta_schedule: linear",
        "  sample_n_frames: 16",
        "  guidance_scale: 8.0",
        "unet_checkpoint_path: null",
        "learning_rate: 0.0001",
        "train_batch_size: 4",
        "checkpointing_steps: 60",
        "max_train_steps: 100",
        "validation_steps: 5000",
    ] {
        assert!(printed.lines().any(|line| line == expected), "lacks `{expected}`:\n{printed}");
    }
    let printed = desk.ok("animatediff train image -c $OFFICIAL/image_finetune.yaml --print-config");
    for expected in ["image_finetune: true", "  beta_schedule: scaled_linear", "train_batch_size: 50", "- ."] {
        assert!(printed.lines().any(|line| line == expected), "lacks `{expected}`:\n{printed}");
    }
}

#[test]
fn official_files_for_another_command_are_refused() {
    let desk = Desk::new();
    for stage in ["motion", "adapter", "motionlora"] {
        desk.refused(
            &format!("animatediff train {stage} -c $OFFICIAL/image_finetune.yaml --print-config"),
            &["image_finetune.yaml:2: `image_finetune`: this file is for `train image`"],
        );
    }
    let words = ["training.yaml:2: `image_finetune`: this file is for `train motion`, not for `train image`"];
    desk.refused("animatediff train image -c $OFFICIAL/training.yaml --print-config", &words);
}

#[test]
fn the_defaults_that_the_official_trainer_documents() {
    let desk = Desk::new();
    let printed = desk.ok("animatediff train motion --base b --videos v --max-steps 1 --print-config");
    for expected in [
        "cfg_random_null_text: true",
        "cfg_random_null_text_ratio: 0.1",
        "scale_lr: false",
        "lr_warmup_steps: 0",
        "lr_scheduler: constant",
        "train_batch_size: 1",
        "adam_beta1: 0.9",
        "adam_beta2: 0.999",
        "adam_weight_decay: 0.01",
        "adam_epsilon: 1e-8",
        "max_grad_norm: 1.0",
        "gradient_accumulation_steps: 1",
    ] {
        assert!(printed.lines().any(|line| line == expected), "lacks `{expected}`:\n{printed}");
    }
}

#[test]
fn mistakes_name_key_line_and_remedy() {
    let desk = Desk::new();
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(&shared()["TINY"]).unwrap();
        assert!(text.contains(from), "{from}");
        desk.write("x.yaml", text.replace(from, to));
    };
    let cases: [(&str, &str, &str, &[&str]); 6] = [
        (
            "motion",
            "max_train_steps: 2",
            "max_train_steps: 2\nmax_train_epoch: 1",
            &["x.yaml:14: `max_train_epoch`: both"],
        ),
        ("motion", "max_train_steps: 2", "", &["`max_train_steps`: how long"]),
        ("image", "lora: {rank: 4}", "motion: m.safetensors", &["x.yaml:10: `motion`: this stage"]),
        ("adapter", "lora: {rank: 4}", "trainable_modules: ['.']", &["x.yaml:10: `trainable_modules`: "]),
        ("adapter", "lora: {rank: 4}", "lora: {rank: 0}", &["x.yaml:10: `lora.rank`: at least 1"]),
        ("motion", "  prefetch: 4", "  videos: clips", &["both `csv_path` and `videos` are set"]),
    ];
    for (stage, from, to, words) in cases {
        edit(from, to);
        desk.refused(&format!("animatediff train {stage} -c x.yaml --print-config"), words);
    }
    let text = fs::read_to_string(&shared()["TINY"]).unwrap();
    let slips = [
        ("output_dir", "output_dirr"),
        ("sample_size: 32", "sample_size: [32]"),
        ("sample_stride", "sample_strid"),
        ("lora: {rank: 4}", "gradient_checkpointing: some"),
        ("max_train_steps: 2", "max_train_steps: two"),
        ("num_workers: 1", "enable_xformers_memory_efficient_attention: false"),
        ("device: cpu", "device: tpu"),
    ];
    desk.write("x.yaml", slips.iter().fold(text, |text, (from, to)| text.replace(from, to)));
    let words = [
        "x.yaml:1: unknown key `output_dirr`; did you mean `output_dir`?",
        "x.yaml:6: ",
        "[height, width]",
        "x.yaml:7: unknown key `train_data.sample_strid`; did you mean `train_data.sample_stride`?",
        "x.yaml:10: ",
        "`none`, `blocks` or `full`",
        "x.yaml:13: ",
        "whole number",
        "x.yaml:14: ",
        "remove the key",
        "x.yaml:15: ",
        "`tpu` is no device",
    ];
    desk.refused("animatediff train motion -c x.yaml --print-config", &words);
    desk.refused("animatediff train motion -c none.yaml --print-config", &["none.yaml: cannot be read"]);
    desk.refused("animatediff train motionlora -c $TINY --print-config", &["`motion`: a MotionLoRA", "--motion FILE"]);
    desk.refused(
        "animatediff train motion --videos v --max-steps 1 --print-config",
        &["pretrained_model_path", "--base"],
    );
    let line = "animatediff train motion -c $TINY --set learning_rat=1 --print-config";
    desk.refused(line, &["--set learning_rat=1: ", "`learning_rate`"]);
    desk.refused(
        "animatediff train motion -c $TINY --set lr_scheduler=sine --print-config",
        &["lr_scheduler", "cosine"],
    );
    assert_eq!(desk.files(), ["x.yaml"], "nothing was begun");
}

#[test]
fn a_schedule_that_cannot_be_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    desk.refused(
        "animatediff train motion -c $TINY --set lr_scheduler=constant_with_warmup --set lr_warmup_steps=-1",
        &["lr_scheduler"],
    );
    assert!(desk.files().is_empty());
}

#[test]
fn settings_go_before_shorthands_before_the_file() {
    let desk = Desk::new();
    let says = |flags: &str, expected: &[&str]| {
        let printed = desk.ok(&format!("animatediff train motion -c $TINY {flags} --print-config"));
        for line in expected {
            assert!(printed.lines().any(|printed| printed == *line), "{flags}: lacks `{line}`:\n{printed}");
        }
    };
    says("", &["max_train_steps: 2"]);
    says("--max-steps 7 --name 'a: b'", &["max_train_steps: 7", "name: 'a: b'"]);
    says("--set max_train_steps=9 --max-steps 7", &["max_train_steps: 9"]);
    says("--set max_train_steps=9 --set max_train_steps=8", &["max_train_steps: 8"]);
    says("--videos clips", &["  csv_path: null", "  video_folder: null", "  videos: clips"]);
    says(
        "--set train_data.sample_stride=3 --set unet_additional_kwargs.motion_module_mid_block=true",
        &["  sample_stride: 3", "  motion_module_mid_block: true"],
    );
}

#[test]
fn cluster_files_start_what_can_be_started() {
    let desk = Desk::new();
    // What the starters do, as far as it goes here: the command, which only prints what it would train.
    let starter = "#!/bin/sh\nwhile [ $1 != animatediff ]; do shift; done; exec \"$@\" --print-config\n";
    for name in ["torchrun", "srun"] {
        desk.write(name, starter);
        desk.ok(&format!("chmod +x {name}"));
    }
    let printed = |line: &str| desk.ok(&format!("export PATH=$PWD:$PATH; {line} --set max_train_steps=7"));
    for script in ["torchrun.sh", "slurm.sh"] {
        let config = printed(&format!("cd $CONFIGS/..; bash $CONFIGS/cluster/{script}"));
        assert!(config.contains("max_train_steps: 7") && config.contains("name: motion"), "{script}: {config}");
    }
    let text = fs::read_to_string(Path::new(&shared()["CONFIGS"]).join("cluster/pytorchjob.yaml")).unwrap();
    let job: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let replicas = &job["spec"]["pytorchReplicaSpecs"];
    for part in ["Master", "Worker"] {
        let command = &replicas[part]["template"]["spec"]["containers"][0]["command"];
        let words: Vec<&str> = command.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let config = printed(&format!("cd $CONFIGS/..; {} --print-config", words.join(" ")));
        assert!(config.contains("max_train_steps: 7"), "{part}: {config}");
    }
    assert_eq!(replicas["Worker"]["replicas"].as_u64().unwrap() + replicas["Master"]["replicas"].as_u64().unwrap(), 8);
    assert_eq!(names("cluster"), ["pytorchjob.yaml", "slurm.sh", "torchrun.sh"]);
}

fn names(kind: &str) -> Vec<String> {
    let folder = Path::new(&shared()["CONFIGS"]).join(kind);
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}
