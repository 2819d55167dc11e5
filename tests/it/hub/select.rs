//! Which files of a repository a model folder gets, for the shapes that repositories on the hub have.

use std::fs;
use std::path::{Path, PathBuf};

use animatediff::hub::{HubError, Unclear};

use super::{Bench, large};

/// A repository of these files.
fn repository(files: &[&str]) -> Bench {
    let bench = Bench::new();
    for file in files {
        bench.server.put(file, file.as_bytes(), false);
    }
    bench
}

/// Those of `files` that are downloaded for the whole repository, sorted.
fn chosen(files: &[&str]) -> Vec<String> {
    let bench = repository(files);
    let root = bench.get("hf:someone/motion").unwrap();
    let (mut names, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        let (inner, here): (Vec<PathBuf>, _) = entries(&folder).partition(|path| path.is_dir());
        folders.extend(inner);
        names.extend(here.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()));
    }
    names.sort();
    names
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

/// Why nothing is downloaded for the whole repository.
fn unclear(files: &[&str]) -> Unclear {
    match repository(files).get("hf:someone/motion") {
        Err(HubError::Unclear { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_gets_what_a_model_needs_and_nothing_else() {
    let bench = Bench::new();
    bench.server.put("model_index.json", b"{}", false).put("unet/config.json", b"{1}", false);
    bench.server.put("unet/diffusion_pytorch_model.safetensors", &large(), true);
    bench.server.put("unet/diffusion_pytorch_model.bin", b"bin", true).put("all.ckpt", b"all", true);
    let root = bench.get("hf:someone/motion").unwrap();
    assert_eq!(fs::read(root.join("unet/diffusion_pytorch_model.safetensors")).unwrap(), large());
    assert!(root.join("model_index.json").exists() && root.join("unet/config.json").exists());
    assert!(!root.join("unet/diffusion_pytorch_model.bin").exists() && !root.join("all.ckpt").exists());

    bench.server.take_requests();
    assert_eq!(bench.get("hf:someone/motion/unet").unwrap(), root.join("unet"));
    assert_eq!(bench.offline("hf:someone/motion").unwrap(), root);
    assert!(bench.server.take_requests().is_empty(), "the cache is known to be complete");
}

#[test]
fn a_pipeline_needs_its_components_and_no_second_copy() {
    let files = [
        "README.md",
        "model_index.json",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "image_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/model.onnx",
        "unet/openvino_model.xml",
        "unet/openvino_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
    ];
    let expected = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
    ];
    assert_eq!(chosen(&files), expected);
}

#[test]
fn a_single_model_takes_safetensors_before_bin_and_plain_before_fp16() {
    let files = [
        "config.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.bin",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors",
        "training_args.bin",
    ];
    assert_eq!(chosen(&files), ["config.json", "diffusion_pytorch_model.safetensors"]);
    assert_eq!(chosen(&["a.fp16.safetensors", "a.bin"]), ["a.fp16.safetensors"]);
    assert_eq!(chosen(&["a.non_ema.bin", "a.fp16.bin"]), ["a.fp16.bin"]);
    assert_eq!(chosen(&["v1.5.safetensors", "v1.5.ckpt"]), ["v1.5.safetensors"]);
}

#[test]
fn the_two_names_of_a_text_encoder_are_one_model() {
    let files = ["config.json", "flax_model.msgpack", "model.safetensors", "pytorch_model.bin", "tf_model.h5"];
    assert_eq!(chosen(&files), ["config.json", "model.safetensors"]);
}

#[test]
fn a_described_model_is_taken_before_other_checkpoints() {
    let files = ["config.json", "diffusion_pytorch_model.safetensors", "old.ckpt"];
    assert_eq!(chosen(&files), ["config.json", "diffusion_pytorch_model.safetensors"]);
    assert!(matches!(unclear(&files[1..]), Unclear::Ambiguous { .. }));
}

#[test]
fn shards_come_with_the_index_of_their_variant() {
    let files = [
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.bin.index.json",
    ];
    assert_eq!(
        chosen(&files),
        [
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
        ]
    );
    let half = chosen(&[files[4], files[5]]);
    assert_eq!(half, [files[4], files[5]]);
}

#[test]
fn an_incomplete_set_of_shards_is_refused() {
    let shard = "m-00001-of-00002.safetensors";
    let text = unclear(&[shard, "m.safetensors.index.json"]).to_string();
    assert!(text.contains("`m` in it lack shard 2 of 2"), "{text}");
    let text = unclear(&[shard, "m-00002-of-00002.safetensors"]).to_string();
    assert!(text.contains("lack their index"), "{text}");
}

#[test]
fn several_checkpoints_are_listed_up_to_twelve() {
    let names: Vec<String> = (0..15).map(|n| format!("mm_{n:02}.ckpt")).collect();
    let text = unclear(&names.iter().map(String::as_str).collect::<Vec<_>>()).to_string();
    assert!(text.contains("15 different checkpoints in it: mm_00.ckpt, "), "{text}");
    assert!(text.contains("mm_11.ckpt and 3 more; add the one to use, `/FILE`"), "{text}");
}

#[test]
fn a_folder_without_a_model_is_refused() {
    assert!(matches!(unclear(&["README.md", "a/b/c.bin"]), Unclear::Nothing { .. }));
    assert_eq!(chosen(&["merges.txt", "vocab.json"]), ["merges.txt", "vocab.json"]);
}

#[test]
fn a_name_is_a_file_a_folder_or_the_whole() {
    let files = ["config.json", "sub/config.json", "sub/model.safetensors", "v1/mm_sd_v14.ckpt", "v1/mm_sd_v15.ckpt"];
    let bench = repository(&files);
    let there = |root: &Path| files.map(|file| root.join(file).exists());
    let root = bench.get("hf:someone/motion").unwrap();
    assert_eq!(there(&root), [true, false, false, false, false]);
    assert_eq!(bench.get("hf:someone/motion/sub/config.json").unwrap(), root.join("sub/config.json"));
    assert_eq!(there(&root), [true, true, false, false, false]);
    assert_eq!(bench.get("hf:someone/motion/sub").unwrap(), root.join("sub"));
    assert_eq!(there(&root), [true, true, true, false, false]);
    let text = bench.why("hf:someone/motion/v1");
    assert!(text.contains("2 different checkpoints in it: mm_sd_v14.ckpt, mm_sd_v15.ckpt; add the one"), "{text}");
}
