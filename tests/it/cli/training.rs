//! Training: what each stage writes and changes, that a run can be stopped anywhere and repeated exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use animatediff::train::checkpoint;
use tch::{Kind, Tensor};

use super::support::{Desk, Run, shared};
use crate::support::{assert_close, golden_path, largest, relative_error, tensors_of, write};

// What a run writes.

#[test]
fn a_run_writes_the_folder_of_the_contract() {
    let desk = Desk::new();
    let run = desk.train(
        "motion -c $TINY --name first --max-steps 3 --set checkpointing_steps=2 --set validation_steps=2 \
         --set 'validation_data.prompts=[a ball, a box]'",
    );
    let stamp = run.folder.file_name().unwrap().to_str().unwrap().strip_prefix("first-").unwrap().to_owned();
    assert!(stamp.len() == 19 && stamp.as_bytes()[10] == b'T', "{stamp}");
    assert_eq!(run.names("checkpoints"), ["step-00000002", "step-00000003"]);
    assert_eq!(run.names("export"), ["motion_module.safetensors"]);
    assert_eq!(run.names("samples"), ["sample-2", "sample-2.gif"]);
    assert_eq!(run.names("samples/sample-2"), ["0.gif", "1.gif"]);
    let pictures = run.names("sanity_check");
    assert!(pictures.len() == 2 && pictures.iter().all(|name| name.ends_with(".gif")), "{pictures:?}");
    let events = run.names("tensorboard");
    assert!(events.len() == 1 && fs::metadata(run.folder.join("tensorboard").join(&events[0])).unwrap().len() > 10_000);
    let rows = run.rows();
    assert_eq!(rows.iter().map(|row| row["step"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    for key in ["loss", "lr", "grad_norm", "clips_per_second"] {
        assert!(rows[2][key].as_f64().unwrap() > 0.0, "{key}");
    }
    let config = run.folder.join("config.yaml");
    let printed = desk.ok(&format!("animatediff train motion -c {} --print-config", config.display()));
    assert_eq!(printed, fs::read_to_string(&config).unwrap(), "the saved configuration is the whole of it");
    let frames = gif_frames(&fs::read(run.folder.join("samples/sample-2/0.gif")).unwrap());
    assert_eq!(frames, (4, 32, 32));
}

#[test]
fn a_dry_run_says_the_first_loss_and_writes_nothing() {
    let desk = Desk::new();
    let told = desk.ok("animatediff train motion -c $TINY --dry-run");
    assert!(desk.files().is_empty() && !desk.path("runs").exists());
    let first = desk.train("motion -c $TINY --max-steps 1").losses()[0][0];
    assert!(desk.ok("animatediff train motion -c $TINY --dry-run --precision fp16").contains("; cpu, fp16"));
    assert!(told.contains(&format!("{first:.5}; nothing was written")), "{told} {first}");
    assert!(told.contains("8 clips, 2 per step, steps 0 to 2"), "{told}");
}

#[test]
fn epochs_make_steps_and_checkpoints_are_rotated() {
    let desk = Desk::new();
    let run = desk.train(
        "adapter -c $TINY --set max_train_steps=-1 --set max_train_epoch=2 --set checkpointing_epochs=1 \
         --set keep_checkpoints=1 --set train_batch_size=3",
    );
    // 16 clips by three are 5⅓ updates, an epoch of 8 clips is over in the third.
    assert_eq!(run.rows().len(), 6);
    assert_eq!(run.names("checkpoints"), ["step-00000003", "step-00000006"], "and one that is known to be sound");
}

#[test]
fn a_debug_run_replaces_the_one_before() {
    let desk = Desk::new();
    for seed in [1, 2] {
        let run = desk.train(&format!("adapter -c $TINY --set is_debug=true --max-steps 1 --set global_seed={seed}"));
        assert!(run.folder.ends_with("runs/debug"));
        assert_eq!(run.rows().len(), 1);
    }
}

// What the stages train and export.

fn key_names(path: &Path) -> BTreeSet<String> {
    tensors_of(path).into_keys().collect()
}

/// The names of a golden file with or without its middle block.
fn golden_names(name: &str, middle: bool) -> BTreeSet<String> {
    let names = key_names(&golden_path(name));
    names.into_iter().filter(|name| middle || !name.contains("mid_block.motion_modules")).collect()
}

#[test]
fn the_adapter_stage() {
    let desk = Desk::new();
    let run = desk.train("adapter -c $TINY");
    assert_eq!(key_names(&run.export), golden_names("adapter.safetensors", true));
    let tensors = run.tensors();
    assert!(tensors.iter().all(|(name, tensor)| tensor.size()[usize::from(name.contains(".up."))] == 4));
    assert!(
        tensors.iter().filter(|(name, _)| name.contains(".up.")).all(|(_, up)| largest(up) > 0.0),
        "all are trained"
    );
    let metadata = run.metadata();
    for (key, value) in [
        ("animatediff.stage", "adapter"),
        ("animatediff.rank", "4"),
        ("animatediff.alpha", "4"),
        ("animatediff.base", &shared()["BASE"]),
        ("animatediff.steps", "2"),
        ("animatediff.version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    let only = |name: &str| name.contains(".lora_A.weight") || name.contains(".lora_B.weight");
    assert!(checkpointed(&run, 2).iter().all(|name| only(name)));
    sampled_differently(&desk, "--adapter", &run);
}

#[test]
fn the_vae_stage() {
    let desk = Desk::new();
    let run = desk.train(
        "vae -c $TINY --max-steps 30 --set train_batch_size=4 --set validation_steps=12 --set vae.rescale=true \
         --set save_precision=fp16",
    );
    assert_eq!(
        run.names("samples"),
        ["sample-12.png", "sample-24.png"],
        "pictures beside their reconstructions, without any prompt"
    );
    let losses: Vec<f64> = run.losses().into_iter().map(|row| row[0]).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[24..]) < 0.9 * mean(&losses[..6]), "a random VAE learns at once: {losses:?}");
    let trained = tensors_of(&run.export.join("vae/diffusion_pytorch_model.safetensors"));
    let random = tensors_of(&Path::new(&shared()["BASE"]).join("vae/diffusion_pytorch_model.safetensors"));
    assert!(trained.keys().eq(random.keys()) && trained.values().all(|tensor| tensor.kind() == Kind::Half));
    // Softmax does not see what is added to all keys.
    let same = trained.iter().filter(|(name, tensor)| {
        !name.ends_with("to_k.bias") && relative_error(&tensor.to_kind(Kind::Float), &random[*name]) < 1e-3
    });
    assert_eq!(same.map(|(name, _)| name).collect::<Vec<_>>(), Vec::<&String>::new(), "every tensor is trained");
    let config = fs::read_to_string(run.export.join("vae/config.json")).unwrap();
    let factor = serde_json::from_str::<serde_json::Value>(&config).unwrap()["scaling_factor"].as_f64().unwrap();
    assert!(factor > 0.0 && factor != 0.18215, "{factor}");
    for part in ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "model_index.json"] {
        let (new, old) = (fs::read(run.export.join(part)), fs::read(Path::new(&shared()["BASE"]).join(part)));
        assert_eq!(new.unwrap(), old.unwrap(), "{part} is copied");
    }
    desk.ok(&format!("animatediff train image -c $TINY --base {} --max-steps 1", run.export.display()));
}

#[test]
fn the_scaling_factor_is_that_of_what_is_exported() {
    let desk = Desk::new();
    let factor = |run: &Run| {
        let config = fs::read(run.export.join("vae/config.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["scaling_factor"].as_f64().unwrap()
    };
    let options = "--set vae.rescale=true --set learning_rate=0.01";
    let averaged = desk.train(&format!("vae -c $TINY --max-steps 4 --set use_ema=true {options}"));
    let base = averaged.export.display();
    let again = desk.train(&format!("vae -c $TINY --base {base} --max-steps 1 {options} --set learning_rate=0"));
    assert!((factor(&averaged) / factor(&again) - 1.0).abs() < 1e-6, "{} {}", factor(&averaged), factor(&again));
}

#[test]
fn what_is_not_trained_is_exported_as_it_was_read() {
    let desk = Desk::new();
    let frozen_as_in = |before: BTreeMap<String, Tensor>, after: BTreeMap<String, Tensor>, trained: &str| {
        let count = |part: bool| before.keys().filter(|name| name.contains(trained) == part).count();
        assert!(before.keys().eq(after.keys()) && count(true) > 0 && count(false) > 0);
        for (name, tensor) in before.iter().filter(|(name, _)| !name.contains(trained)) {
            assert!(tensor.equal(&after[name]), "{name}");
        }
    };
    let options = "--set precision=bf16 --max-steps 1";
    let run = desk.train(&format!("image -c $TINY --set 'trainable_modules=[attn1]' {options}"));
    let unet = |root: &Path| tensors_of(&root.join("unet/diffusion_pytorch_model.safetensors"));
    frozen_as_in(unet(Path::new(&shared()["BASE"])), unet(&run.export), "attn1");
    let module = desk.train("motion -c $TINY --max-steps 1");
    let part = "trainable_modules=[\"motion_modules.*.to_q\"]";
    let run = desk.train(&format!("motion -c $TINY --motion {} --set '{part}' {options}", module.export.display()));
    frozen_as_in(module.tensors(), run.tensors(), "to_q");
}

#[test]
fn a_vae_keeps_its_latents_when_only_the_decoder_is_trained() {
    let desk = Desk::new();
    let run = desk.train("vae -c $TINY --set 'trainable_modules=[decoder.]'");
    let trained = tensors_of(&run.export.join("vae/diffusion_pytorch_model.safetensors"));
    let before = tensors_of(&Path::new(&shared()["BASE"]).join("vae/diffusion_pytorch_model.safetensors"));
    for (name, tensor) in &trained {
        assert_eq!(*tensor != before[name], name.starts_with("decoder."), "{name}");
    }
    let config = |path: &Path| fs::read(path.join("vae/config.json")).unwrap();
    assert_eq!(config(&run.export), config(Path::new(&shared()["BASE"])));
    for (line, told) in [
        ("vae -c $TINY --adapter $ADAPTER", "the VAE has no attention for an adapter"),
        ("vae -c $TINY --set vae.kl_weight=-1", "`kl_weight` must be a number of at least 0"),
        ("vae -c $TINY --set unet_checkpoint_path=x", "this stage trains the VAE alone"),
        ("motion -c $TINY --set save_precision=auto", "fp32, fp16 or bf16 is expected"),
        (
            "motion -c $TINY --set train_batch_size=4294967296 --set gradient_accumulation_steps=4294967296 \
             --set max_train_epoch=2 --set max_train_steps=-1",
            "at most 1048576 clips a step are expected",
        ),
        ("motion -c $TINY --set max_train_epoch=9000000000000000000 --set max_train_steps=-1", "at most 1000000000"),
        ("motion -c $TINY --set lr_scheduler=polynomial --set lr_power=-1", "a number of at least 0"),
        ("motion -c $TINY --set snr_gamma=0", "a number above 0 is expected, or null"),
        ("motion -c $TINY --set snr_gamma=5 --set debiased_estimation_loss=true", "keep one weighting"),
        ("motion -c $TINY --set timestep_bias_multiplier=4", "`earlier` or `later` is expected"),
        ("motion -c $TINY --set timestep_bias_strategy=later --set timestep_bias_multiplier=0", "a number above 0"),
        ("motion -c $TINY --set timestep_bias_strategy=later", "1 biases nothing"),
        (
            "motion -c $TINY --set timestep_bias_strategy=later --set timestep_bias_multiplier=2 --set timestep_bias_portion=2",
            "a share above 0 and at most 1",
        ),
    ] {
        desk.refused(&format!("animatediff train {line}"), &[told]);
    }
}

#[test]
fn biased_timesteps_are_trained_on() {
    let desk = Desk::new();
    let losses = |rest: &str| desk.train(&format!("motion -c $TINY --max-steps 2 {rest}")).losses();
    let even = losses("");
    assert_eq!(losses("--set timestep_bias_strategy=none"), even);
    let later = "--set timestep_bias_strategy=later --set timestep_bias_multiplier=1000";
    assert_ne!(losses(later), even);
    assert_eq!(losses(later), losses(later));
}

#[test]
fn cached_latents_change_nothing() {
    let desk = Desk::new();
    // Sixteen updates of two clips: each of the eight comes back.
    let line = "adapter -c $TINY --max-steps 16 --set checkpointing_steps=9 --set cache_latents=";
    let (cached, plain) = (desk.train(&format!("{line}true")), desk.train(&format!("{line}false")));
    for (one, other) in cached.losses().iter().zip(plain.losses()) {
        assert!((one[0] - other[0]).abs() < 1e-5 * other[0], "{one:?} {other:?}");
    }
    let step = cached.folder.join("checkpoints/step-00000009");
    let before = cached.losses();
    desk.ok(&format!("animatediff train adapter --resume {}", step.display()));
    assert_eq!(cached.losses(), before, "resumed with an empty cache, bit for bit");
}

#[test]
fn a_checkpoint_from_before_a_key_was_there_is_resumed_at_its_default() {
    let desk = Desk::new();
    let run = desk.train("adapter -c $TINY");
    let checkpoints = run.folder.join("checkpoints");
    let mut checkpoint = checkpoint::load(&checkpoints.join("step-00000002")).unwrap();
    for key in ["vae", "snr_gamma", "debiased_estimation_loss", "timestep_bias_strategy"] {
        checkpoint.state.as_object_mut().unwrap().remove(key).expect(key);
    }
    fs::remove_dir_all(checkpoints.join("step-00000002")).unwrap();
    checkpoint::save(&checkpoints, &checkpoint, None).unwrap();
    let resume = format!("animatediff train adapter --resume {} --max-steps 3", run.folder.display());
    let told = ["`debiased_estimation_loss` was false and is now true"];
    desk.refused(&format!("{resume} --set debiased_estimation_loss=true"), &told);
    desk.ok(&resume);
    assert_eq!(run.rows().len(), 3);
}

#[test]
fn every_option_of_a_step_is_taken_up_where_it_was_left() {
    let desk = Desk::new();
    for options in [
        "--set use_ema=true --set ema.decay=0.9",
        "--set use_8bit_adam=true",
        "--set precision=bf16 --set gradient_checkpointing=full",
        "--set precision=fp16 --set noise_offset=0.1",
        "--set gradient_checkpointing=blocks --set noise_scheduler_kwargs.prediction_type=v_prediction \
         --set noise_scheduler_kwargs.rescale_betas_zero_snr=true --set snr_gamma=5",
    ] {
        let line =
            format!("motion -c $TINY --max-steps 4 --set checkpointing_steps=2 --set learning_rate=0.01 {options}");
        let whole = desk.train(&line);
        let (losses, export) = (whole.losses(), fs::read(&whole.export).unwrap());
        let middle = whole.folder.join("checkpoints/step-00000002");
        desk.ok(&format!("animatediff train motion --resume {}", middle.display()));
        assert_eq!(whole.losses(), losses, "{options}");
        assert_eq!(fs::read(&whole.export).unwrap(), export, "{options}: bit for bit");
    }
}

#[test]
fn computing_again_changes_no_bit_of_a_run() {
    let desk = Desk::new();
    let export = |how: &str| {
        fs::read(desk.train(&format!("motion -c $TINY --set gradient_checkpointing={how}")).export).unwrap()
    };
    let plain = export("none");
    for how in ["blocks", "full", "true"] {
        assert!(export(how) == plain, "{how}");
    }
    desk.refused(
        "animatediff train motion -c $TINY --set gradient_checkpointing=some",
        &["`none`, `blocks` or `full`"],
    );
}

#[test]
fn averages_are_what_is_exported() {
    let desk = Desk::new();
    let run = desk.train("motion -c $TINY --set learning_rate=0.01 --max-steps 3 --set use_ema=true");
    let plain = desk.train("motion -c $TINY --set learning_rate=0.01 --max-steps 3");
    assert_eq!(run.losses(), plain.losses(), "training does not look at them");
    let averages = checkpoint::load(&run.folder.join("checkpoints/step-00000003")).unwrap();
    let (ema, trained) = (&averages.tensors["ema"], &averages.tensors["trained"]);
    let name = "unet.down_blocks.0.motion_modules.0.proj_in.weight";
    let exported = run
        .tensors()
        .into_iter()
        .find(|(key, _)| key.ends_with("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"));
    let exported = exported.unwrap().1;
    assert!(exported.equal(&ema[name]) && !exported.equal(&trained[name]));
    desk.refused("animatediff train motion -c $TINY --set ema.decay=0.9", &["`use_ema` is not set"]);
    desk.refused("animatediff train motion -c $TINY --set use_ema=true --set ema.decay=1", &["`decay` must be"]);
}

#[test]
fn a_run_that_diverges_skips_writes_down_and_ends_with_what_was_sound() {
    let desk = Desk::new();
    let whole = desk.train("motion -c $TINY --name whole --max-steps 4");
    let run = desk.train("motion -c $TINY --name wild --max-steps 2");
    // The third update ruins the weights, and is saved; then nothing is, until the end.
    let line = format!(
        "animatediff train motion --resume {} --max-steps 20 --set checkpointing_steps=1 --set keep_checkpoints=1 \
         --set learning_rate=1e38 --set max_bad_steps=3",
        run.folder.display()
    );
    let sound = run.folder.join("checkpoints/step-00000002");
    let words = format!("go on with --resume {}, which is from before the last update", sound.display());
    let told = desk.fails(&line, 1, &["step 6: 3 steps in a row had no finite loss", "Lower learning_rate", &words]);
    assert!(told.contains("the update is skipped"), "{told}");
    assert_eq!(run.names("checkpoints"), ["step-00000002", "step-00000003"]);
    let dumps = run.names("bad_steps");
    assert_eq!(dumps, ["step-00000004.json", "step-00000005.json", "step-00000006.json"]);
    let dump: serde_json::Value =
        serde_json::from_slice(&fs::read(run.folder.join("bad_steps").join(&dumps[0])).unwrap()).unwrap();
    assert!(dump["clips"][0]["id"].is_string() && dump["clips"][1]["position"].is_u64(), "{dump}");
    let rows = fs::read_to_string(run.folder.join("metrics.jsonl")).unwrap();
    assert!(rows.contains("\"skipped\":\"skipped\""), "{rows}");

    let patient = "--set max_train_steps=6 --set max_bad_steps=9";
    let done = desk.run(&format!("{} {patient}", line.replace(" --max-steps 20", "")));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("warning: 3 steps in a row were skipped up to this one, 6"), "{}", done.stderr);
    assert_eq!(run.names("checkpoints"), ["step-00000002", "step-00000006"], "what is known to be sound stays");

    let usual = "--set max_train_steps=4 --set learning_rate=1e-3";
    let resumed = desk.train(&format!("motion --resume {} {usual}", sound.display()));
    same(&whole, &resumed);
}

#[test]
fn a_step_that_cannot_be_written_down_is_not_saved() {
    let desk = Desk::new();
    let run = desk.train("motion -c $TINY");
    fs::write(run.folder.join("bad_steps"), "a file where a folder has to be").unwrap();
    let line =
        format!("animatediff train motion --resume {} --set learning_rate=1e38 --max-steps 9", run.folder.display());
    desk.fails(&line, 1, &["bad_steps: cannot create the folder"]);
    assert_eq!(run.rows().len(), 3, "the fourth step was skipped");
    assert_eq!(run.names("checkpoints"), ["step-00000002"]);
}

#[test]
fn convolutions_take_the_place_of_temporal_attention() {
    let desk = Desk::new();
    let kwargs = "unet_additional_kwargs={use_inflated_groupnorm: true, motion_module_type:";
    let vanilla = desk.train(&format!("motion -c $TINY --set '{kwargs} Vanilla}}'"));
    let run = desk.train(&format!("motion -c $TINY --set '{kwargs} Convolution}}'"));
    let count = |run: &Run| {
        let weights = run.tensors().into_iter().filter(|(name, _)| name.ends_with("weight"));
        weights.map(|(_, tensor)| tensor.numel()).sum::<usize>()
    };
    assert_eq!(count(&run), count(&vanilla), "the same budget, but for biases");
    let mixers: Vec<String> =
        key_names(&run.export).into_iter().filter(|name| name.contains("attention_blocks")).collect();
    assert!(mixers.iter().all(|name| name.contains(".conv.") || name.contains(".to_out.0.")), "{mixers:?}");
    sampled_differently(&desk, "--motion", &run);
    desk.refused(
        &format!("animatediff train motionlora -c $TINY --motion {}", run.export.display()),
        &["nothing in the model matches"],
    );
}

#[test]
fn the_motion_stage_in_all_versions() {
    let desk = Desk::new();
    for (version, options, middle, length) in [
        ("v1", "{use_inflated_groupnorm: false}", false, 24),
        (
            "v2",
            "{use_inflated_groupnorm: true, motion_module_mid_block: true, \
             motion_module_kwargs: {temporal_position_encoding_max_len: 32}}",
            true,
            32,
        ),
        (
            "v3",
            "{use_inflated_groupnorm: true, motion_module_kwargs: {temporal_position_encoding_max_len: 32}}",
            false,
            32,
        ),
    ] {
        let run = desk.train(&format!("motion -c $TINY --name {version} --set 'unet_additional_kwargs={options}'"));
        let golden = key_names(Path::new(&shared()[version.to_uppercase().as_str()]));
        assert_eq!(key_names(&run.export), golden, "{version}");
        assert_eq!(golden.iter().any(|name| name.starts_with("mid_block")), middle);
        for (name, tensor) in run.tensors() {
            if name.ends_with("pos_encoder.pe") {
                assert_eq!(tensor.size()[..2], [1, length], "{version}: {name}");
                assert!((tensor.double_value(&[0, 3, 0]) - 3f64.sin()).abs() < 1e-6);
            } else if name.ends_with("proj_out.weight") {
                assert!(largest(&tensor) > 0.0, "{version}: `{name}` began at zero and was trained");
            }
        }
        let metadata = run.metadata();
        assert_eq!(metadata["animatediff.motion_module"], version);
        assert!(metadata["animatediff.unet_additional_kwargs"].contains("motion_module_mid_block"));
        assert!(checkpointed(&run, 2).iter().all(|name| name.contains(".motion_modules.")));
        sampled_differently(&desk, "--motion", &run);
    }
}

#[test]
fn a_motion_module_is_sampled_on_the_schedule_it_was_trained_on() {
    let desk = Desk::new();
    let run = desk.train("motion -c $TINY --set noise_scheduler_kwargs.beta_schedule=scaled_linear");
    let module = run.export.display();
    let sampled = |rest: &str| {
        let request = "--prompt x --seed 1 --steps 2 -W 32 -H 32 -L 2 -o x.gif --overwrite --save-latents x";
        desk.ok(&format!("animatediff sample --base $BASE --motion {module} {request} {rest}"));
        desk.latents("x")
    };
    desk.write("scaled.yaml", "noise_scheduler_kwargs: {beta_schedule: scaled_linear}");
    desk.write("official.yaml", "noise_scheduler_kwargs: {beta_schedule: linear}");
    let own = sampled("");
    assert_eq!(own, sampled("--inference-config scaled.yaml"), "the module's own");
    assert!(
        relative_error(&sampled("--inference-config official.yaml"), &own) > 1e-3,
        "what the user says comes first"
    );
    let lora = desk.run(&format!("animatediff train motionlora -c $TINY --motion {module} --dry-run"));
    assert_eq!(lora.code, Some(0), "{}", lora.stderr);
    let words = "warning: `noise_scheduler_kwargs` is not what";
    assert!(lora.stderr.contains(words) && lora.stderr.contains("beta_schedule: scaled_linear"), "{}", lora.stderr);
}

#[test]
fn pictures_are_sampled_on_the_schedule_their_base_was_trained_on() {
    let desk = Desk::new();
    let noisier = "--set noise_scheduler_kwargs.beta_end=0.02";
    let base = desk.train(&format!("image -c $TINY {noisier}")).export;
    let written = fs::read_to_string(base.join("scheduler/scheduler_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap()["beta_end"], 0.02, "{written}");
    let sampled = |base: &Path, rest: &str| {
        let request = "--prompt x --seed 1 --steps 2 -W 32 -H 32 -o x.png --overwrite --save-latents x";
        desk.ok(&format!("animatediff sample --base {} {request} {rest}", base.display()));
        desk.latents("x")
    };
    desk.write("own.yaml", "noise_scheduler_kwargs: {beta_schedule: scaled_linear, beta_end: 0.02}");
    desk.write("other.yaml", "noise_scheduler_kwargs: {beta_schedule: scaled_linear}");
    let own = sampled(&base, "");
    assert_eq!(own, sampled(&base, "--inference-config own.yaml"), "the base's own");
    assert!(
        relative_error(&sampled(&base, "--inference-config other.yaml"), &own) > 1e-3,
        "what the user says comes first"
    );

    let words = "warning: `noise_scheduler_kwargs` is not what";
    let adapter = |rest: &str| {
        let run = desk.run(&format!("animatediff train adapter -c $TINY --base {} --dry-run {rest}", base.display()));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    let told = adapter("");
    assert!(told.contains(words) && told.contains("beta_end: 0.02"), "{told}");
    assert!(!adapter(noisier).contains(words));

    let scheduler = base.join("scheduler/scheduler_config.json");
    fs::write(&scheduler, r#"{"rescale_betas_zero_snr": true}"#).unwrap();
    let line = format!("animatediff sample --base {} --prompt x --steps 1 -o y.png", base.display());
    desk.refused(&line, &["scheduler_config.json", "`rescale_betas_zero_snr`"]);
    fs::remove_file(&scheduler).unwrap();
    assert_eq!(sampled(&base, ""), sampled(&base, "--inference-config other.yaml"), "Stable Diffusion's own");
    let again = desk.train(&format!("image -c $TINY --max-steps 1 --base {} {noisier}", base.display())).export;
    let written = fs::read_to_string(again.join("scheduler/scheduler_config.json")).unwrap();
    assert!(written.contains("DDIMScheduler") && written.contains("\"beta_end\": 0.02"), "{written}");
}

#[test]
fn the_motion_lora_stage() {
    let desk = Desk::new();
    for (module, middle) in [("$V2", true), ("$V3", false)] {
        let before = fs::read(golden_path("motion_v2.safetensors")).unwrap();
        let run = desk.train(&format!("motionlora -c $TINY --base $GOLD --motion {module}"));
        assert_eq!(fs::read(golden_path("motion_v2.safetensors")).unwrap(), before);
        assert_eq!(key_names(&run.export), golden_names("motion_lora.safetensors", middle));
        assert_eq!(run.metadata()["animatediff.stage"], "motionlora");
        assert!(checkpointed(&run, 2).iter().all(|name| name.contains(".motion_modules.") && name.contains(".lora_")));
        let line = |rest: &str| {
            format!(
                "animatediff sample --base $GOLD --motion {module} --prompt x --seed 1 --steps 1 -W 32 -H 32 -L 4 \
                 -o x.gif --overwrite {rest}"
            )
        };
        desk.ok(&line("--save-latents without"));
        desk.ok(&line(&format!("--save-latents with --motion-lora {}", run.export.display())));
        assert!(relative_error(&desk.latents("with"), &desk.latents("without")) > 1e-6);
    }
}

#[test]
fn the_image_stage_trains_the_unet_and_leaves_the_rest() {
    let desk = Desk::new();
    let run = desk.train("image -c $TINY --set 'trainable_modules=[attentions.]'");
    let base = Path::new(&shared()["BASE"]);
    let changed = |component: &str, file: &str| -> BTreeSet<String> {
        let (old, new) =
            (tensors_of(&base.join(component).join(file)), tensors_of(&run.export.join(component).join(file)));
        assert!(old.keys().eq(new.keys()), "{component}: the names of the diffusers layout");
        old.into_iter().filter(|(name, tensor)| *tensor != new[name]).map(|(name, _)| name).collect()
    };
    let unet = changed("unet", "diffusion_pytorch_model.safetensors");
    assert!(unet.len() > 100 && unet.iter().all(|name| name.contains("attentions.")), "{}", unet.len());
    assert!(changed("vae", "diffusion_pytorch_model.safetensors").is_empty());
    assert!(changed("text_encoder", "model.safetensors").is_empty());
    let line = format!(
        "animatediff sample --base {} --prompt x --steps 1 -W 64 -H 64 --seed 1 -o x.png",
        run.export.display()
    );
    desk.ok(&line);
}

#[test]
fn the_image_stage_trains_the_text_encoder_when_asked_to() {
    let desk = Desk::new();
    let run = desk.train("image -c $TINY --set train_text_encoder=true");
    let (base, export) = (Path::new(&shared()["BASE"]), &run.export);
    for (file, trained) in [
        ("unet/diffusion_pytorch_model.safetensors", true),
        ("text_encoder/model.safetensors", true),
        ("vae/diffusion_pytorch_model.safetensors", false),
    ] {
        let (old, new) = (tensors_of(&base.join(file)), tensors_of(&export.join(file)));
        let moved = old.iter().filter(|(name, tensor)| new[*name] != **tensor).count();
        assert_eq!(moved > old.len() / 2, trained, "{file}: {moved} of {}", old.len());
        assert!(trained || moved == 0);
    }
    let twice = desk.train(&format!("image -c $TINY --max-steps 1 --base {}", export.display()));
    assert_ne!(twice.losses()[0], run.losses()[0], "a run can begin with what another one exported");
}

/// Samples with and without the exported weights.
fn sampled_differently(desk: &Desk, flag: &str, run: &Run) {
    let line = |rest: &str| {
        format!(
            "animatediff sample --base $BASE --inference-config official.yaml --prompt x --seed 1 --steps 1 -W 32 -H 32 -L 2 \
             -o x.gif --overwrite {rest}"
        )
    };
    // The same schedule for both: what differs are the weights.
    desk.write("official.yaml", "noise_scheduler_kwargs: {}");
    if !desk.path("without").exists() {
        desk.ok(&line("--save-latents without"));
    }
    desk.ok(&line(&format!("--save-latents with {flag} {}", run.export.display())));
    let difference = relative_error(&desk.latents("with"), &desk.latents("without"));
    assert!(difference > 1e-5, "{flag}: {difference}");
}

/// Names of the trained tensors in a checkpoint.
fn checkpointed(run: &Run, step: usize) -> BTreeSet<String> {
    key_names(&run.folder.join(format!("checkpoints/step-{step:08}/trained.safetensors")))
}

// What runs start from.

#[test]
fn the_scale_of_a_low_rank_pair_is_folded_into_its_export() {
    let desk = Desk::new();
    let run = desk.train("adapter -c $TINY --set lora.alpha=1");
    let inside = tensors_of(&run.folder.join("checkpoints/step-00000002/trained.safetensors"));
    let exported = run.tensors();
    let our = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    let their = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora";
    assert_eq!(exported[&format!("{their}.down.weight")], inside[&format!("{our}.lora_A.weight")]);
    let (up, trained) = (&exported[&format!("{their}.up.weight")], &inside[&format!("{our}.lora_B.weight")]);
    assert!(largest(up) > 0.0);
    assert_close("up", up, &(trained * 0.25), 1e-7);
}

#[test]
fn a_low_rank_training_goes_on_from_a_file() {
    let desk = Desk::new();
    let still = "--set learning_rate=0 --max-steps 1";
    let new = desk.train(&format!("adapter -c $TINY --base $GOLD {still}"));
    let on = desk.train(&format!("adapter -c $TINY --base $GOLD {still} --set init_lora=$ADAPTER"));
    assert_ne!(new.losses()[0], on.losses()[0]);
    assert_eq!(on.tensors(), tensors_of(&golden_path("adapter.safetensors")), "with no learning nothing changes");
    desk.refused(
        "animatediff train adapter -c $TINY --base $GOLD --set init_lora=$ADAPTER --set lora.rank=8",
        &["adapter.safetensors: its low-rank pairs have rank 4 and `lora.rank` is 8; set `lora.rank` to 4"],
    );
    desk.refused("animatediff train adapter -c $TINY --set init_lora=$LORA", &["this is a MotionLoRA"]);
}

#[test]
fn an_adapter_is_merged_under_the_motion_module() {
    let desk = Desk::new();
    let loss = |rest: &str| desk.ok(&format!("animatediff train motion -c $TINY --base $GOLD --dry-run {rest}"));
    let (without, with) = (loss(""), loss("--adapter $ADAPTER"));
    assert_ne!(without, with);
    assert_eq!(without, loss("--adapter $ADAPTER --set adapter_scale=0"));
    assert_ne!(with, loss("--adapter $ADAPTER --set adapter_scale=0.5"));
}

#[test]
fn tensors_of_the_base_can_be_replaced() {
    let desk = Desk::new();
    let file = Path::new(&shared()["BASE"]).join("unet/diffusion_pytorch_model.safetensors");
    let halved = |(name, tensor): (String, Tensor)| (name, tensor * 0.5);
    write(&desk.path("unet.safetensors"), tensors_of(&file).into_iter().map(halved));
    let loss = |rest: &str| desk.ok(&format!("animatediff train motion -c $TINY --dry-run {rest}"));
    assert_ne!(loss(""), loss("--set unet_checkpoint_path=unet.safetensors"));
    assert_eq!(loss(""), loss("--set unet_checkpoint_path="));
}

#[test]
fn a_motion_module_is_trained_on() {
    let desk = Desk::new();
    let still = desk.train("motion -c $TINY --base $GOLD --motion $V3 --max-steps 1 --set learning_rate=0");
    let module = tensors_of(Path::new(&shared()["V3"]));
    for (name, tensor) in still.tensors() {
        assert!(name.ends_with(".pe") || tensor == module[&name], "{name}");
    }
    let some =
        desk.train("motion -c $TINY --base $GOLD --motion $V3 --set 'trainable_modules=[motion_modules.*.attn1.]'");
    for (name, tensor) in some.tensors() {
        let is_trained = name.contains(".attention_blocks.0.") && !name.ends_with(".pe");
        let same = if name.ends_with(".pe") {
            relative_error(&tensor, &module[&name]) < 1e-5
        } else {
            tensor == module[&name]
        };
        // One token looks at itself in the middle of these small pictures, but even there values have gradients.
        assert!(same != is_trained || name.contains("to_q") || name.contains("to_k"), "{name}");
    }
    let words = ["nothing in the model matches `motion_modulse.`"];
    desk.refused("animatediff train motion -c $TINY --set 'trainable_modules=[motion_modulse.]'", &words);
}

// Exact repetition.

fn same(a: &Run, b: &Run) {
    assert_eq!(a.losses(), b.losses());
    assert_eq!(fs::read(&a.export).unwrap(), fs::read(&b.export).unwrap(), "the exported bytes");
}

#[test]
fn a_seed_is_a_run() {
    let desk = Desk::new();
    let train = |seed: i64| desk.train(&format!("motion -c $TINY --set global_seed={seed} --max-steps 3"));
    let (first, again, other) = (train(5), train(5), train(6));
    same(&first, &again);
    assert_ne!(first.losses(), other.losses());
}

#[test]
fn a_resumed_run_equals_the_undisturbed_one() {
    let desk = Desk::new();
    let stages = [("motion", "--set train_data.horizontal_flip=true"), ("motionlora", "--base $GOLD --motion $V3")];
    for (stage, rest) in stages {
        let line = |steps: usize, name: &str| {
            format!(
                "{stage} -c $TINY {rest} --name {stage}-{name} --max-steps {steps} --set cfg_random_null_text_ratio=0.5 \
                 --set 'validation_data.prompts=[a ball]' --set 'validation_steps_tuple=[1, 3]' \
                 --set gradient_accumulation_steps=2 --set train_batch_size=1 --set num_workers=2"
            )
        };
        let whole = desk.train(&line(4, "whole"));
        let part = desk.train(&line(2, "part"));
        let folder = part.folder.display();
        if stage == "motion" {
            let resumed = desk.train(&format!("{stage} --resume {folder} --max-steps 3"));
            assert_eq!(resumed.folder, part.folder);
        }
        let last = format!("{folder}/checkpoints/step-00000002");
        // Back to an earlier checkpoint: what came after it is set aside and done again.
        let again = desk.train(&format!("{stage} --resume {last} --max-steps 4"));
        same(&whole, &again);
        if stage == "motion" {
            assert_eq!(again.names("checkpoints"), ["abandoned-step-00000003", "step-00000002", "step-00000004"]);
            assert_eq!(again.names("tensorboard").len(), 3, "an event file for each start");
        }
    }
}

#[test]
fn clips_shared_out_to_threads_train_as_one_batch_does_and_resume_exactly() {
    let desk = Desk::new();
    for stage in ["motion", "adapter"] {
        let line = |rest: &str| format!("{stage} -c $TINY --set train_batch_size=3 --set checkpointing_steps=2 {rest}");
        let one = desk.train(&line("--max-steps 4 -o one"));
        let two = desk.train_on(2, &line("--max-steps 4 -o two"));
        for ([loss, norm, _], [other_loss, other_norm, _]) in one.losses().into_iter().zip(two.losses()) {
            assert!((loss / other_loss - 1.0).abs() < 1e-4, "{stage}: {loss}, {other_loss} on two threads");
            assert!((norm / other_norm - 1.0).abs() < 1e-3, "{stage}: norm {norm}, {other_norm} on two threads");
        }
        assert_ne!(fs::read(&one.export).unwrap(), fs::read(&two.export).unwrap(), "{stage}: nothing was shared out");
        let part = desk.train_on(2, &line("--max-steps 2 -o part"));
        let resumed = desk.train_on(2, &format!("{stage} --resume {} --max-steps 4", part.folder.display()));
        assert_eq!(two.losses(), resumed.losses(), "{stage}");
        assert_eq!(fs::read(&two.export).unwrap(), fs::read(&resumed.export).unwrap(), "{stage}");
    }
}

#[test]
fn the_image_stage_with_its_text_encoder_resumes_exactly() {
    let desk = Desk::new();
    let line = |steps: usize| format!("image -c $TINY --max-steps {steps} --set train_text_encoder=true");
    let whole = desk.train(&line(3));
    let part = desk.train(&line(1));
    let resumed = desk.train(&format!("image --resume {} --max-steps 3", part.folder.display()));
    assert_eq!(whole.losses(), resumed.losses());
    for file in ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"] {
        assert_eq!(fs::read(whole.export.join(file)).unwrap(), fs::read(resumed.export.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn samples_along_the_way_do_not_disturb_training() {
    let desk = Desk::new();
    let without = desk.train("motion -c $TINY --max-steps 4");
    let with = desk.train(
        "motion -c $TINY --max-steps 4 --set 'validation_data.prompts=[a, b]' --set validation_steps=1 \
         --set checkpointing_steps=1",
    );
    same(&without, &with);
}

#[test]
fn workers_do_not_change_the_data() {
    let desk = Desk::new();
    let train = |workers: usize| desk.train(&format!("motion -c $TINY --set num_workers={workers} --max-steps 4"));
    same(&train(1), &train(3));
}

#[test]
fn accumulation_equals_the_large_batch() {
    let desk = Desk::new();
    let train = |batch: usize, passes: usize| {
        desk.train(&format!(
            "motion -c $TINY --max-steps 3 --set train_batch_size={batch} --set gradient_accumulation_steps={passes} \
             --set cfg_random_null_text_ratio=0.3 --set learning_rate=1e-4"
        ))
    };
    let (large, small) = (train(4, 1), train(2, 2));
    for (step, (large, small)) in large.losses().iter().zip(small.losses()).enumerate() {
        for (name, large, small) in [("loss", large[0], small[0]), ("gradient norm", large[1], small[1])] {
            let tolerance = if step == 0 { 1e-5 } else { 1e-4 };
            assert!((large / small - 1.0).abs() < tolerance, "step {step}: {name} {large} and {small}");
        }
    }
}

#[test]
fn the_learning_rate_follows_its_schedule() {
    let desk = Desk::new();
    let run = desk.train(
        "adapter -c $TINY --max-steps 4 --set lr_scheduler=linear --set lr_warmup_steps=2 --set scale_lr=true \
         --set gradient_accumulation_steps=2",
    );
    let rates: Vec<f64> = run.losses().iter().map(|row| row[2]).collect();
    // The peak is 1e-3 times the four clips of an update.
    for (rate, expected) in rates.iter().zip([0.0, 2e-3, 4e-3, 2e-3]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
}

#[test]
fn captions_are_dropped_as_often_as_configured() {
    let desk = Desk::new();
    let losses = |rest: &str| desk.train(&format!("adapter -c $TINY --max-steps 2 {rest}")).losses();
    let (kept, dropped) = (losses("--set cfg_random_null_text_ratio=0"), losses("--set cfg_random_null_text_ratio=1"));
    assert_ne!(kept, dropped);
    assert_eq!(kept, losses("--set cfg_random_null_text=false --set cfg_random_null_text_ratio=1"));
    let videos = format!("{}/videos", shared()["SHAPES"]);
    assert_eq!(dropped, losses(&format!("--videos {videos} --caption '' --set cfg_random_null_text=false")));
}

#[test]
fn a_folder_of_clips_serves_as_a_table_does() {
    let desk = Desk::new();
    let videos = format!("{}/videos", shared()["SHAPES"]);
    let table = desk.train("motion -c $TINY --set cfg_random_null_text_ratio=1 --max-steps 1");
    let folder = desk.train(&format!(
        "motion -c $TINY --set cfg_random_null_text_ratio=1 --max-steps 1 --videos {videos} --caption 'a shape'"
    ));
    assert_eq!(table.losses(), folder.losses());
    assert_eq!(table.tensors(), folder.tensors());
    let data = [&table, &folder].map(|run| run.metadata()["animatediff.data"].clone());
    assert_eq!(data, ["clips.csv", "videos"], "what differs is where the clips are said to come from");
}

#[test]
fn resuming_as_something_else_is_refused() {
    let desk = Desk::new();
    let run = desk.train("adapter -c $TINY");
    let folder = run.folder.display();
    let before = desk.files();
    let refused = |line: &str, words: &[&str]| {
        let done = desk.refused(&format!("animatediff train {line}"), words);
        assert_eq!(desk.files(), before, "{line} changed something");
        done
    };
    refused(
        &format!("adapter --resume {folder} --set train_batch_size=3"),
        &["step-00000002", "an update was on 2 clips"],
    );
    refused(&format!("adapter --resume {folder} --set global_seed=1"), &["`global_seed` was 42 and is now 1"]);
    refused(&format!("adapter --resume {folder} --set train_data.sample_size=64"), &["`sample_size` was 32"]);
    refused(&format!("adapter --resume {folder} --set lora.rank=2"), &["step-00000002", "`lora` was"]);
    refused(&format!("image --resume {folder}"), &["`stage` was \"adapter\" and is now \"image\""]);
    refused("adapter --resume nowhere", &["--resume nowhere: ", "a run's folder (with config.yaml)"]);
    refused("adapter -c $TINY --resume nowhere", &["--resume nowhere: "]);
    refused(&format!("adapter --resume {folder} --name x"), &["--resume RUN goes on in the run's own folder"]);
    refused(&format!("adapter --resume {folder}/checkpoints/step-00000009"), &["step-00000009"]);
    let checkpoint = run.folder.join("checkpoints/step-00000002");
    let damaged = checkpoint.join("trained.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    refused(&format!("adapter --resume {folder}"), &["all 1 checkpoints are damaged"]);
    refused(&format!("adapter --resume {}", checkpoint.display()), &["trained.safetensors"]);
    fs::remove_dir_all(&checkpoint).unwrap();
    desk.refused(&format!("animatediff train adapter --resume {folder}"), &["no complete checkpoint to resume from"]);
}

#[test]
fn resuming_on_other_weights_is_refused_wherever_they_are() {
    let desk = Desk::new();
    let [one, other] = [1, 2].map(|seed| desk.train(&format!("motion -c $TINY --set global_seed={seed}")));
    let lora = desk.train(&format!("motionlora -c $TINY --motion {}", one.export.display()));
    let line = |rest: &str| format!("animatediff train motionlora --resume {} {rest}", lora.folder.display());
    desk.refused(&line(&format!("--motion {}", other.export.display())), &["the weights", "`motion` was"]);
    fs::copy(&one.export, desk.path("moved.safetensors")).unwrap();
    desk.ok(&line("--motion moved.safetensors --max-steps 3"));
    let line = |rest: &str| format!("animatediff train motion --resume {} --dry-run {rest}", one.folder.display());
    for architecture in ["use_inflated_groupnorm: false", "motion_module_kwargs: {temporal_position_encoding: false}"] {
        desk.refused(
            &line(&format!("--set 'unet_additional_kwargs={{{architecture}}}'")),
            &["`unet_additional_kwargs` was"],
        );
    }
    desk.refused(&line("--set unet_checkpoint_path=$GOLD/unet"), &["error: "]);
    desk.refused(&line("--set noise_scheduler_kwargs.beta_end=0.02"), &["`noise_scheduler_kwargs` was"]);
    // What only samplers ask for.
    desk.ok(&line("--set noise_scheduler_kwargs.steps_offset=0"));
    desk.ok(&line("--set noise_scheduler_kwargs.steps_offset=1"));
}

#[test]
fn auto_goes_on_with_the_newest_run_and_starts_one_where_there_is_none() {
    let desk = Desk::new();
    let whole = desk.train("adapter -c $TINY --name whole --max-steps 4");
    let line =
        |steps: usize| format!("animatediff train adapter -c $TINY --name again --resume auto --max-steps {steps}");
    let done = desk.run(&line(2));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("no run `again` in runs left a checkpoint: starting a new one"), "{}", done.stderr);
    // The same command again: once with more to do, once with nothing.
    let mut exports = Vec::new();
    for _ in 0..2 {
        let done = desk.run(&line(4));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("going on from runs/again-"), "{}", done.stderr);
        let export = desk.path(done.stdout.trim_end());
        let folder = export.ancestors().nth(2).unwrap().to_owned();
        let resumed = Run { folder, export };
        same(&whole, &resumed);
        exports.push(resumed.export);
    }
    assert_eq!(exports[0], exports[1], "one run");
    let fresh = desk.train("adapter -c $TINY --name again --resume never --max-steps 1");
    assert_ne!(fresh.export, exports[0]);
    desk.refused(&format!("{} --set train_batch_size=3", line(5)), &["an update was on 2 clips and is now on 3"]);
}

#[test]
fn auto_goes_on_with_a_debug_run() {
    let desk = Desk::new();
    let line = |steps: usize| format!("adapter -c $TINY --set is_debug=true --resume auto --max-steps {steps}");
    desk.train(&line(1));
    assert_eq!(desk.train(&line(3)).rows().len(), 3);
    assert_eq!(
        desk.train("adapter -c $TINY --set is_debug=true --max-steps 1").rows().len(),
        1,
        "not without being asked"
    );
}

#[test]
fn a_damaged_checkpoint_is_passed_over_in_words() {
    let desk = Desk::new();
    let whole = desk.train("adapter -c $TINY --name whole --max-steps 4");
    let run = desk.train("adapter -c $TINY --name run --max-steps 3 --set checkpointing_steps=1");
    let damaged = run.folder.join("checkpoints/step-00000003/optimizer.safetensors");
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    for resume in ["auto".to_owned(), run.folder.display().to_string()] {
        let done =
            desk.run(&format!("animatediff train adapter -c $TINY --set name=run --resume {resume} --max-steps 4"));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let told = done.stderr.contains("warning: a damaged checkpoint is passed over for the one before it: ");
        assert_eq!(told, resume == "auto", "only once, as it is set aside then: {}", done.stderr);
        assert!(!told || done.stderr.contains("step-00000003/optimizer.safetensors: "), "{}", done.stderr);
        same(&whole, &Run { folder: run.folder.clone(), export: run.export.clone() });
    }
    assert_eq!(run.names("checkpoints")[0], "abandoned-step-00000003");
}

// Signals.

#[test]
fn a_signal_leaves_a_complete_checkpoint() {
    let desk = Desk::new();
    let whole = desk.train("adapter -c $TINY --name whole --max-steps 8");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        // As soon as two updates are on record. The last step is far away, so that only the signal can end the run.
        let line = format!(
            "animatediff train adapter -c $TINY --name {signal} --max-steps 100000 & run=$!
             until [ \"$(cat runs/{signal}-*/metrics.jsonl 2>/dev/null | wc -l)\" -ge 2 ]; do kill -0 $run; sleep 0.02; done
             kill -{signal} $run; wait $run || exit $?"
        );
        let done = desk.run(&line);
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        assert!(done.stderr.contains("stopped by a signal; go on with --resume runs/"), "{}", done.stderr);
        let export = desk.path(done.stdout.trim_end());
        let folder = export.ancestors().nth(2).unwrap().to_owned();
        let stopped = Run { folder: folder.clone(), export };
        let steps = stopped.rows().len();
        assert!(steps >= 2);
        let last = format!("step-{steps:08}");
        assert_eq!(stopped.names("checkpoints"), [last.as_str()]);
        animatediff::train::checkpoint::load(&folder.join("checkpoints").join(&last)).unwrap();
        assert_eq!(stopped.metadata()["animatediff.steps"], steps.to_string());
        if steps < 8 {
            let resumed = desk.train(&format!("adapter --resume {} --max-steps 8", folder.display()));
            same(&whole, &resumed);
        }
    }
}

#[test]
fn a_wish_for_a_checkpoint_is_granted_and_training_goes_on() {
    let desk = Desk::new();
    let whole = desk.train("adapter -c $TINY --name whole --max-steps 30");
    let line = "exec animatediff train adapter -c $TINY --name wish --max-steps 30 & run=$!
        until [ \"$(cat runs/wish-*/metrics.jsonl 2>/dev/null | wc -l)\" -ge 2 ]; do kill -0 $run; sleep 0.02; done
        kill -USR1 $run
        wait $run";
    let done = desk.run(line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let export = desk.path(done.stdout.trim_end());
    let wish = Run { folder: export.ancestors().nth(2).unwrap().to_owned(), export };
    same(&whole, &wish);
    let steps = wish.names("checkpoints");
    assert!(steps.len() == 2 && steps[0] < steps[1] && steps[1] == "step-00000030", "{steps:?}");
    let resumed = desk.train(&format!("adapter --resume {}/checkpoints/{}", wish.folder.display(), steps[0]));
    same(&whole, &resumed);
}

#[test]
fn a_wish_that_comes_before_training_does_not_end_the_process() {
    let desk = Desk::new();
    // Before the run's folder is there; the smallest process that has the handler is one that already listens.
    let line = "animatediff train adapter -c $TINY --max-steps 3 & run=$!
        until grep -q '^SigCgt:.*[2367abef]..$' /proc/$run/status; do kill -0 $run; done
        kill -USR1 $run
        wait $run";
    let done = desk.run(line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let folder = desk.path(done.stdout.trim_end()).ancestors().nth(2).unwrap().to_owned();
    let steps = fs::read_dir(folder.join("checkpoints")).unwrap().count();
    assert_eq!(steps, 2, "one after the first update, and the last");
}

#[test]
fn two_processes_cannot_write_one_run() {
    let desk = Desk::new();
    let line = "animatediff train adapter -c $TINY --max-steps 100000 & run=$!
        until [ \"$(cat runs/*/metrics.jsonl 2>/dev/null | wc -l)\" -ge 1 ]; do kill -0 $run; sleep 0.02; done
        animatediff train adapter --resume runs/tiny-* && echo twice
        kill -TERM $run
        wait $run || exit $?";
    let done = desk.run(line);
    assert_eq!(done.code, Some(143), "{}", done.stderr);
    assert!(done.stderr.contains("another process is writing here"), "{}", done.stderr);
    assert!(!done.stdout.contains("twice"));
}

// Data that cannot be read.

/// A folder of `clips` pictures, of which `broken` are none.
fn pictures(desk: &Desk, clips: usize, broken: usize) {
    fs::create_dir_all(desk.path("pictures")).unwrap();
    for clip in 0..clips {
        let shade = (10 * clip) as u8;
        let path = desk.path(&format!("pictures/{clip}.png"));
        animatediff::frame::Frame::filled(64, 64, [shade, 255 - shade, 99]).save_png(&path).unwrap();
        if clip < broken {
            fs::write(&path, "not a picture").unwrap();
        }
    }
}

#[test]
fn unreadable_files_are_listed_at_the_end() {
    let desk = Desk::new();
    pictures(&desk, 24, 1);
    let line = "animatediff train image -c $TINY --videos pictures --caption x --set train_batch_size=4 --max-steps 7";
    let done = desk.run(line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for words in ["1 of 24 clips tried could not be read", "not a picture: 1", "pictures/0.png: not a picture that"] {
        assert!(done.stderr.contains(words), "lacks `{words}`:\n{}", done.stderr);
    }
}

#[test]
fn a_share_of_unreadable_files_fails_the_run_and_loses_nothing() {
    let desk = Desk::new();
    pictures(&desk, 24, 6);
    let line = "animatediff train image -c $TINY --videos pictures --caption x --set train_batch_size=2 \
                --set checkpointing_steps=1";
    desk.refused(
        &format!("{line} --max-steps 20"),
        &["clips cannot be read", "`max_unreadable` allows 5.0 %", "not a picture: "],
    );
    assert!(desk.files().iter().any(|name| name.contains("/checkpoints/step-") && name.ends_with("manifest.json")));
    desk.ok(&format!("{line} --set train_data.max_unreadable=0.3 --max-steps 3"));
}

#[test]
fn the_share_counts_for_small_sets_too() {
    let desk = Desk::new();
    pictures(&desk, 6, 1);
    let line = "animatediff train image -c $TINY --videos pictures --caption x --set train_batch_size=2 --max-steps 4";
    desk.refused(line, &["1 of 6 clips cannot be read: 16.7 %, and `max_unreadable` allows 5.0 %"]);
    desk.ok(&format!("{line} --set train_data.max_unreadable=0.2"));
}

/// Number of frames, width and height.
pub fn gif_frames(bytes: &[u8]) -> (usize, usize, usize) {
    let mut decoder = gif::DecodeOptions::new().read_info(bytes).unwrap();
    let size = (usize::from(decoder.width()), usize::from(decoder.height()));
    let mut frames = 0;
    while decoder.read_next_frame().unwrap().is_some() {
        frames += 1;
    }
    (frames, size.0, size.1)
}
