//! What is said about files that cannot be used: every message names the file, what is wrong, and the next step.

use std::{collections::BTreeMap, fs, path::Path};

use animatediff::{
    assemble::{AssembleError, Base, Motion, UNetParts, read_adapter, read_motion_lora},
    model::unet::motion,
    nn::{LoraPlan, NormScope, Pattern, Plan},
    weights::{read, read_component},
};
use tch::{Device, Kind, Tensor};

use crate::support::{base, copy_of_base, golden_path, motion as golden_motion, tensors_of, write, write_shards};

/// Compares the message of `result` with `want`, in which `{}` stands for `path`.
#[track_caller]
fn refused<T, E: std::error::Error>(what: &str, result: Result<T, E>, path: &Path, want: &str) {
    let Err(error) = result else { panic!("{what}: accepted") };
    assert_eq!(error.to_string().replace(&path.display().to_string(), "{}"), want, "{what}");
}

fn one(name: &str) -> Vec<(String, Tensor)> {
    vec![(name.to_owned(), Tensor::from_slice(&[1.0f32, 2.0]))]
}

#[test]
fn files_that_are_not_whole_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mm.safetensors");
    write(&path, one("a.weight"));
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 8 + 64 + 8, "length of the header, header, two numbers");
    let pickle =
        "{}: not a safetensors file: it is a PyTorch pickle, which is not read; convert it to safetensors first";
    let cases: [(&str, &[u8], &str); 10] = [
        ("empty", b"", "{}: truncated: the header describes 8 bytes and the file has 0; copy or download it again"),
        (
            "cut in the length of the header",
            &whole[..5],
            "{}: truncated: the header describes 8 bytes and the file has 5; copy or download it again",
        ),
        (
            "cut in the header",
            &whole[..65],
            "{}: truncated: the header describes 72 bytes and the file has 65; copy or download it again",
        ),
        (
            "cut in the tensors",
            &whole[..77],
            "{}: truncated: the header describes 80 bytes and the file has 77; copy or download it again",
        ),
        (
            "more than the header says",
            &[&whole[..], b"more"].concat(),
            "{}: not a safetensors file: it has 84 bytes and its header describes 80; copy or download it again",
        ),
        ("zip pickle", b"PK\x03\x04rest of the archive", pickle),
        ("plain pickle", b"\x80\x02}q\x00X\x0a\0\0\0state_dict", pickle),
        (
            "LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
            "{}: not a safetensors file: it is a Git LFS pointer; run `git lfs pull` to get the file itself",
        ),
        (
            "web page",
            b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
            "{}: not a safetensors file: it is a web page; download the file itself (on the Hub, its /resolve/ address)",
        ),
        (
            "header that is not JSON",
            b"\x08\0\0\0\0\0\0\0{nothing",
            "{}: not a safetensors file: invalid JSON in header: key must be a string at line 1 column 2; \
             copy or download it again, or convert it to safetensors first",
        ),
    ];
    for (what, bytes, want) in cases {
        fs::write(&path, bytes).unwrap();
        refused(what, read(&path), &path, want);
    }
}

#[test]
fn safetensors_without_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mm.safetensors");
    write(&path, vec![]);
    refused("no tensors", read(&path), &path, "{}: the file holds no tensors; export or download it again");
    write(&path, [("mask".to_owned(), Tensor::from_slice(&[1u8, 2]))]);
    let want = "{}: `mask` has type U8; F32, F16, BF16, F64, I64 and I32 are read: save it as one of them";
    refused("bytes", read(&path), &path, want);
    let absent = dir.path().join("absent.safetensors");
    refused("absent", read(&absent), &absent, "{}: cannot be opened: No such file or directory (os error 2)");
    refused("folder", read(dir.path()), dir.path(), "{}: not a safetensors file: it is a folder; give the file in it");
}

#[test]
fn components_without_weights() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &Path| read_component(dir, &["model", "pytorch_model"]);
    let none = |hint: &str| format!("{{}}: no model.safetensors or pytorch_model.safetensors here; {hint}");
    refused("empty folder", open(dir.path()), dir.path(), &none("is this a diffusers folder?"));
    let absent = dir.path().join("absent");
    refused("absent folder", open(&absent), &absent, &none("the folder does not exist"));
    fs::write(dir.path().join("pytorch_model.bin"), "PK").unwrap();
    let pickle = "pytorch_model.bin is a pickle, which is not read: save the model with safe_serialization=True";
    refused("pickle", open(dir.path()), dir.path(), &none(pickle));
}

#[test]
fn incomplete_shards() {
    let dir = tempfile::tempdir().unwrap();
    let open = || read_component(dir.path(), &["model"]);
    let index = "model.safetensors.index.json";
    let tensors: BTreeMap<_, _> = ["a", "b", "c"].map(|name| one(name).remove(0)).into();
    write_shards(dir.path(), index, &tensors);
    assert_eq!(open().unwrap().len(), 3);

    let not = |reason: &str| {
        format!("{{}}/{index}: not an index of shards: {reason}; copy or download index and shards again")
    };
    write(&dir.path().join("model-00001-of-00002.safetensors"), one("c"));
    refused("tensor in no shard", open(), dir.path(), &not("`a` is in none of the shards"));
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let want = "{}/model-00002-of-00002.safetensors: cannot be opened: No such file or directory (os error 2)";
    refused("absent shard", open(), dir.path(), want);
    fs::write(dir.path().join(index), "{}").unwrap();
    refused("not an index", open(), dir.path(), &not("missing field `weight_map` at line 1 column 2"));
}

/// A way to read a file, and the format it is read as.
type Reader = (&'static str, fn(&Path) -> Result<(), AssembleError>);

const MOTION: Reader = ("AnimateDiff motion module", |path| Motion::read(path, None).map(drop));
const ADAPTER: Reader = ("AnimateDiff domain adapter", |path| read_adapter(path).map(drop));
const MOTION_LORA: Reader = ("AnimateDiff MotionLoRA", |path| read_motion_lora(path).map(drop));

#[test]
fn files_of_another_kind() {
    let adapter = "it looks like a domain adapter: give it with --adapter";
    let motion_lora = "it looks like a MotionLoRA: give it with --motion-lora";
    let module = "it looks like a motion module: give it with --motion";
    let image = "it looks like an image model without motion modules: give its diffusers folder with --base";
    let unet = "base/unet/diffusion_pytorch_model";
    let cases = [
        ("adapter", MOTION_LORA, adapter),
        ("adapter", MOTION, adapter),
        ("motion_lora", ADAPTER, motion_lora),
        ("motion_lora", MOTION, motion_lora),
        ("motion_v2", ADAPTER, module),
        ("motion_v2", MOTION_LORA, module),
        (unet, MOTION, image),
        (unet, ADAPTER, image),
    ];
    for (name, (format, read), step) in cases {
        let path = golden_path(&format!("{name}.safetensors"));
        let keys = tensors_of(&path);
        let (total, first) = (keys.len(), keys.first_key_value().unwrap().0);
        let want =
            format!("{{}}: {total} of {total} keys are unknown to the format `{format}`, first `{first}`; {step}");
        refused(&format!("{name} as {format}"), read(&path), &path, &want);
    }
}

#[test]
fn files_in_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.safetensors");
    let cases = [
        (
            "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight",
            "it looks like a motion module in diffusers' names: these are not read yet",
        ),
        (
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "it looks like a LoRA in kohya's names: these are not read yet",
        ),
        (
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
            "it looks like a LoRA in PEFT's names: these are not read yet",
        ),
        (
            "model.diffusion_model.input_blocks.0.0.weight",
            "it looks like a single-file checkpoint: give a diffusers folder instead",
        ),
        (
            "down_blocks.0.motion_modules.0.temporal_transformer.extra.weight",
            "`animatediff inspect {}` shows what it holds",
        ),
        ("anything", "`animatediff inspect {}` shows what it holds"),
    ];
    let (format, read) = MOTION;
    for (name, step) in cases {
        write(&path, one(name));
        let want = format!("{{}}: 1 of 1 keys are unknown to the format `{format}`, first `{name}`; {step}");
        refused(name, read(&path), &path, &want);
    }
}

fn build(parts: UNetParts, plan: Plan) -> Result<(), AssembleError> {
    parts.build(plan, Device::Cpu, Kind::Float).map(drop)
}

#[test]
fn a_motion_lora_without_its_module() {
    let base = base();
    let path = golden_path("motion_lora.safetensors");
    let merged = |scale| vec![(read_motion_lora(&path).unwrap(), scale)];
    for version in ["v1", "v3"] {
        let motion = Some(golden_motion(version, NormScope::Frame));
        let parts = UNetParts { motion, merged: merged(1.0), ..UNetParts::new(&base) };
        let want = "{}: 8 of 168 low-rank pairs fit no layer of this model, first \
                    `mid_block.motion_modules.0.transformer_blocks.0.attn1.to_k`; a MotionLoRA made for a v2 motion \
                    module fits no v1 or v3 module: give a v2 module with --motion";
        refused(version, build(parts, Plan::frozen()), &path, want);
    }
    let parts = UNetParts { merged: merged(0.0), ..UNetParts::new(&base) };
    let want = "{}: 168 of 168 low-rank pairs fit no layer of this model, first \
                `down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_k`; a MotionLoRA needs a motion module: \
                give one with --motion";
    refused("no module, even at scale 0", build(parts, Plan::frozen()), &path, want);
}

#[test]
fn damaged_low_rank_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lora.safetensors");
    let pairs = tensors_of(&golden_path("adapter.safetensors"));
    let (first, down) = pairs.first_key_value().unwrap();
    assert!(first.ends_with("attn1.processor.to_k_lora.down.weight"), "{first}");
    // Reads the pairs with the first tensor replaced, or without it.
    let read_with = |replacement: Option<Tensor>| {
        let others = pairs.iter().skip(1).map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        write(&path, others.chain(replacement.map(|tensor| (first.clone(), tensor))));
        read_adapter(&path)
    };
    let layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k";

    let want = format!(
        "{{}}: `{layer}` has only one half of its low-rank pair: the file is incomplete, export or download it again"
    );
    refused("half", read_with(None), &path, &want);
    let want = format!(
        "{{}}: `{layer}.lora_A.weight` holds NaN or infinite values; the file is damaged, or its training diverged"
    );
    refused("NaN", read_with(Some(down * f64::NAN)), &path, &want);
    let want = format!(
        "{{}}: the low-rank pair of `{layer}` is [16, 4] · [4, 32], the layer's weight is [16, 16]; \
         it was made for a model of another size"
    );
    let wide = read_with(Some(down.repeat([1, 2]))).unwrap();
    let base = base();
    let parts = UNetParts { merged: vec![(wide, 1.0)], ..UNetParts::new(&base) };
    refused("too wide", build(parts, Plan::frozen()), &path, &want);
}

#[test]
fn weights_that_do_not_make_the_network() {
    let dir = copy_of_base();
    let folder = dir.path().join("text_encoder");
    let path = folder.join("model.safetensors");
    let (whole, base) = (tensors_of(&path), Base::open(dir.path()).unwrap());
    let zeros = |size: i64| Tensor::zeros([size], (Kind::Float, Device::Cpu));
    let bias = "text_model.final_layer_norm.bias";
    let not_finite = "{}/model.safetensors: the weights do not make the text encoder: 1 tensor holds NaN or infinite \
                      values, first `text_model.final_layer_norm.bias`; the file is damaged, or its training diverged";
    // The tensor that is put in or, without one, left out.
    let cases = [
        (
            bias,
            None,
            "{}: the weights do not make the text encoder: 1 tensor is missing, first \
             `text_model.final_layer_norm.bias`; the weights are incomplete: copy or download them again",
        ),
        (
            bias,
            Some(zeros(7)),
            "{}/model.safetensors: the weights do not make the text encoder: 1 tensor has another shape, first \
             `text_model.final_layer_norm.bias`: the model has [24], the file [7]; \
             `animatediff inspect {}/model.safetensors` shows what it holds",
        ),
        (bias, Some(zeros(24) * f64::NAN), not_finite),
        (bias, Some(zeros(24) - f64::INFINITY), not_finite),
        (
            "text_model.head.weight",
            Some(zeros(7)),
            "{}/model.safetensors: the weights do not make the text encoder: 1 tensor has no place in the model, first \
             `text_model.head.weight`; `animatediff inspect {}/model.safetensors` shows what it holds",
        ),
        (
            "visual.proj",
            Some(zeros(7)),
            "{}/model.safetensors: 1 of 37 keys are unknown to the format `CLIPTextModel`, first `visual.proj`; \
             `animatediff inspect {}/model.safetensors` shows what it holds",
        ),
    ];
    for (name, replacement, want) in cases {
        let others = whole.iter().filter(|(other, _)| *other != name);
        let others = others.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        write(&path, others.chain(replacement.map(|tensor| (name.to_owned(), tensor))));
        refused(name, base.text_encoder(Plan::frozen(), Device::Cpu, Kind::Float), &folder, want);
    }
}

#[test]
fn values_that_overflow_a_sum_are_finite() {
    let dir = copy_of_base();
    let path = dir.path().join("text_encoder/model.safetensors");
    let mut tensors = tensors_of(&path);
    tensors.insert("text_model.final_layer_norm.bias".into(), Tensor::from_slice(&[f32::MAX; 24]));
    write(&path, tensors);
    Base::open(dir.path()).unwrap().text_encoder(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
}

#[test]
fn motion_modules_that_do_not_fit() {
    let base = base();
    let path = golden_path("motion_v2.safetensors");
    let as_v3 = Motion::read(&path, Some(motion::Config::v3()));
    refused(
        "v2 as v3",
        as_v3.map(drop),
        &path,
        "{}: this motion module has a part for the middle block (v2), and `motion_module_mid_block` is false; set it to \
         true, or leave out `unet_additional_kwargs` to have the file decide",
    );

    let v3 = || golden_motion("v3", NormScope::Frame);
    let config = |change: fn(&mut motion::ModuleConfig)| {
        let mut config = motion::Config::v3();
        change(&mut config.motion_module_kwargs);
        Motion::fresh(config)
    };
    let cases = [
        (
            Motion { config: motion::Config::v2(), ..v3() },
            "{}: the weights do not make the UNet: 26 tensors are missing, first \
             `mid_block.motion_modules.0.norm.weight`; is the module of the version that `unet_additional_kwargs` \
             describes? Only v2 has `mid_block`",
        ),
        (
            config(|module| module.num_attention_heads = 5),
            "the motion module does not fit the base: 16 channels are not divisible by num_attention_heads · \
             temporal_attention_dim_div = 5",
        ),
        (
            config(|module| module.temporal_attention_dim_div = 0),
            "the motion module does not fit the base: num_attention_heads and temporal_attention_dim_div must be at least 1",
        ),
        (
            config(|module| module.attention_block_types.clear()),
            "the motion module does not fit the base: a module needs at least one transformer block with one attention",
        ),
    ];
    for (motion, want) in cases {
        let parts = UNetParts { motion: Some(motion), ..UNetParts::new(&base) };
        refused(want, build(parts, Plan::frozen()), &path, want);
    }
}

#[test]
fn patterns_that_match_nothing() {
    let base = base();
    let example =
        "a pattern is a part of a name like `down_blocks.0.motion_modules.0.proj_in.weight`, with `*` for anything";
    let lora = LoraPlan { targets: vec![Pattern::new(".attentions."), Pattern::new("attn3")], rank: 4, scale: 1.0 };
    let lora = Plan { lora: Some(lora), fresh: vec![Pattern::new("lora_")], ..Plan::frozen() };
    let cases = [
        (Plan::train(["conv_in", "motion_modules."].map(Pattern::new)), "motion_modules."),
        (Plan::train([Pattern::new("attentions.*.attn3")]), "attentions.*.attn3"),
        (lora, "attn3"),
    ];
    for (plan, pattern) in cases {
        let want = format!("the weights do not make the UNet: nothing in the model matches `{pattern}`; {example}");
        refused(pattern, build(UNetParts::new(&base), plan), &base.dir, &want);
    }
}

#[test]
fn bases_of_another_family() {
    let dir = copy_of_base();
    let config = dir.path().join("unet/config.json");
    let original: serde_json::Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let family = |name: &str| {
        format!(
            "{{}}/unet/config.json: this is a {name} model; AnimateDiff's modules are for Stable Diffusion 1.x: \
             give a base of that family"
        )
    };
    let unsupported =
        |what: &str, expected: &str| format!("{{}}/unet/config.json: `{what}` is not supported: expected {expected}");
    let mixed = |what: &str| format!("{{}}: not a base model: {what}: the folders are from different models");
    let cases = [
        ("addition_embed_type", "\"text_time\"", family("Stable Diffusion XL")),
        ("cross_attention_dim", "1024", family("Stable Diffusion 2")),
        ("in_channels", "9", family("Stable Diffusion inpainting")),
        ("act_fn", "\"gelu\"", unsupported("act_fn: \"gelu\"", "\"silu\", as in Stable Diffusion 1.x")),
        ("norm_num_groups", "7", unsupported("norm_num_groups: 7", "a divisor of [16, 32, 32, 32]")),
        (
            "up_block_types",
            "[\"UpBlock2D\", \"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"]",
            unsupported("up_block_types: AttnUpBlock2D", "CrossAttnUpBlock2D or UpBlock2D"),
        ),
        (
            "block_out_channels",
            "[16, 32]",
            unsupported("block_out_channels: [16, 32]", "one entry per down and up block"),
        ),
        ("attention_head_dim", "[4, 4]", unsupported("attention_head_dim: [4, 4]", "one number, or one per level")),
        (
            "layers_per_block",
            "\"two\"",
            "{}/unet/config.json: layers_per_block: invalid type: string \"two\", expected i64".into(),
        ),
        ("cross_attention_dim", "768", mixed("its text encoder is 24 wide and its UNet expects 768")),
        ("in_channels", "8", mixed("its VAE has 4 latent channels and its UNet takes 8")),
    ];
    for (key, value, want) in cases {
        let mut json = original.clone();
        json[key] = serde_json::from_str(value).unwrap();
        fs::write(&config, json.to_string()).unwrap();
        refused(key, Base::open(dir.path()), dir.path(), &want);
    }
}

#[test]
fn folders_that_are_no_base() {
    let dir = copy_of_base();
    let not = |reason: &str| format!("{{}}: not a base model: {reason}");
    let open = |what: &str, path: &Path, want: &str| refused(what, Base::open(path), path, want);

    let file = dir.path().join("model_index.json");
    open("file", &file, &not("it is a file; give a folder in the diffusers layout (single files are not read yet)"));
    let absent = dir.path().join("absent");
    let want = not("there is no such folder; `animatediff init --preset tiny DIR` makes a random one to try");
    open("absent", &absent, &want);

    fs::write(dir.path().join("unet/config.json"), "{").unwrap();
    let want = "{}/unet/config.json: not JSON: EOF while parsing an object at line 1 column 1";
    open("config.json cut short", dir.path(), want);
    fs::copy(golden_path("base/unet/config.json"), dir.path().join("unet/config.json")).unwrap();
    fs::remove_file(dir.path().join("vae/config.json")).unwrap();
    let want = "{}/vae/config.json: cannot be read: No such file or directory (os error 2)";
    open("no VAE", dir.path(), want);
    fs::create_dir(dir.path().join("text_encoder_2")).unwrap();
    let want = not("it is a Stable Diffusion XL model; AnimateDiff's modules here are for Stable Diffusion 1.x");
    open("two text encoders", dir.path(), &want);
    fs::remove_file(dir.path().join("unet/config.json")).unwrap();
    let want = not("it has no unet/config.json; expected the folders unet, vae, text_encoder, tokenizer");
    open("no UNet", dir.path(), &want);
}
