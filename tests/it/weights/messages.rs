//! What is said about files that cannot be used: every message names the file, what is wrong, and the next step.

use std::{collections::BTreeMap, fs, path::Path};

use animatediff::{
    assemble::{AssembleError, Base, Motion, UNetParts, read_adapter, read_lora, read_motion_lora},
    model::unet::motion,
    nn::{LoraPlan, NormScope, Pattern, Plan},
    weights::read,
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
    let archive =
        "{}: is not a whole PyTorch archive: its end record is missing, so it is cut short; download or save it again";
    let old = "{}: is a bare pickle, as PyTorch saved before version 1.6; open it in PyTorch and save it again with \
               `torch.save(torch.load(path, weights_only=True), new)`";
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
        ("zip cut short", b"PK\x03\x04rest of the archive", archive),
        ("plain pickle", b"\x80\x02}q\x00X\x0a\0\0\0state_dict", old),
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
             copy or download it again",
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
    let header = br#"{"mask":{"dtype":"U16","shape":[1],"data_offsets":[0,2]}}       "#;
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header, b"ab"].concat()).unwrap();
    let want = "{}: `mask` has type U16; this type is not read: save it as float32, float16 or bfloat16";
    refused("16 bits without a sign", read(&path), &path, want);
    let absent = dir.path().join("absent.safetensors");
    refused("absent", read(&absent), &absent, "{}: cannot be opened: No such file or directory (os error 2)");
}

#[test]
fn components_without_weights() {
    let dir = tempfile::tempdir().unwrap();
    let none = |hint: &str| {
        format!(
            "{{}}: no diffusion_pytorch_model.safetensors, model.safetensors, pytorch_model.safetensors, \
             adapter_model.safetensors, pytorch_lora_weights.safetensors here; {hint}"
        )
    };
    let hint = "give the file itself, or a folder that diffusers wrote";
    refused("empty folder", read(dir.path()), dir.path(), &none(hint));
    fs::create_dir(dir.path().join("unet")).unwrap();
    let hint = "it is a base model's folder: give one of its parts, like its unet";
    refused("base", read(dir.path()), dir.path(), &none(hint));
}

#[test]
fn incomplete_shards() {
    let dir = tempfile::tempdir().unwrap();
    let open = || read(dir.path());
    let index = "model.safetensors.index.json";
    let tensors: BTreeMap<_, _> = ["a", "b", "c"].map(|name| one(name).remove(0)).into();
    write_shards(dir.path(), index, &tensors);
    assert_eq!(open().unwrap().tensors.len(), 3);

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

/// A way to read a file, and what it takes it for.
type Reader = (&'static str, fn(&Path) -> Result<(), AssembleError>);

const MOTION: Reader = ("a motion module", |path| Motion::read(path, None).map(drop));
const ADAPTER: Reader = ("a domain adapter", |path| read_adapter(path).map(drop));
const MOTION_LORA: Reader = ("a MotionLoRA", |path| read_motion_lora(path).map(drop));
const LORA: Reader = ("a LoRA", |path| read_lora(path, false).map(drop));

#[test]
fn files_of_another_kind() {
    let adapter = ("a domain adapter", "give it with --adapter");
    let motion_lora = ("a MotionLoRA", "give it with --motion-lora");
    let module = ("a motion module", "give it with --motion");
    let image = ("an image UNet", "give it with --dreambooth");
    let unet = "base/unet/diffusion_pytorch_model";
    let cases = [
        ("adapter", MOTION_LORA, adapter),
        ("adapter", MOTION, adapter),
        ("motion_lora", ADAPTER, motion_lora),
        ("motion_lora", MOTION, motion_lora),
        ("motion_v2", ADAPTER, module),
        ("motion_v2", MOTION_LORA, module),
        ("motion_v2", LORA, module),
        (unet, MOTION, image),
        (unet, ADAPTER, image),
    ];
    for (name, (wanted, read), (found, step)) in cases {
        let path = golden_path(&format!("{name}.safetensors"));
        let want = format!("{{}}: this is {found}, and {wanted} is expected; {step}");
        refused(&format!("{name} as {wanted}"), read(&path), &path, &want);
    }
}

#[test]
fn files_of_other_families() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.safetensors");
    let sd15 = "this program is for Stable Diffusion 1.x and its motion modules";
    let cases = [
        (
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
            "a Stable Diffusion XL checkpoint",
            sd15,
        ),
        ("cond_stage_model.model.ln_final.weight", "a Stable Diffusion 2 checkpoint", sd15),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "a LoRA for Stable Diffusion XL", sd15),
        (
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.positional_encoding",
            "a HotshotXL motion module",
            "HotshotXL is made for Stable Diffusion XL",
        ),
        ("double_blocks.0.img_attn.qkv.weight", "a FLUX model", sd15),
    ];
    let (_, read) = MOTION;
    for (name, what, reason) in cases {
        write(&path, one(name));
        refused(name, read(&path), &path, &format!("{{}}: this is {what}: {reason}"));
    }
    let norm = "up_blocks.2.motion_modules.0.temporal_transformer.norm.weight";
    write(&path, [(norm.to_owned(), Tensor::zeros([320], (Kind::Float, Device::Cpu)))]);
    let want =
        "{}: this is a motion module for Stable Diffusion XL: it has modules on three levels, where this base has four";
    refused("three levels", read(&path), &path, want);
}

#[test]
fn names_that_no_table_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.safetensors");
    let (_, read) = MOTION;
    write(&path, ["encoder.weight", "decoder.weight"].into_iter().flat_map(one));
    let want = "{}: its 2 keys are those of no format that is read here, first `decoder.weight`; \
                README has the table of formats";
    refused("nothing", read(&path), &path, want);
    let mut module = tensors_of(&golden_path("motion_v2.safetensors"));
    let name = "down_blocks.0.motion_modules.0.temporal_transformer.extra.weight";
    module.insert(name.into(), Tensor::from_slice(&[1.0f32]));
    write(&path, module);
    let want = format!(
        "{{}}: 1 of 589 keys are unknown to the format `motion module (official)`, first `{name}`; \
         `animatediff inspect {{}} --keys` lists them"
    );
    refused("one more", read(&path), &path, &want);
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
            "{}/model.safetensors: 1 of 37 keys are unknown to the format `text encoder (transformers)`, first \
             `text_model.head.weight`; `animatediff inspect {}/model.safetensors --keys` lists them",
        ),
        (
            "visual.proj",
            Some(zeros(7)),
            "{}/model.safetensors: 1 of 37 keys are unknown to the format `text encoder (transformers)`, first \
             `visual.proj`; `animatediff inspect {}/model.safetensors --keys` lists them",
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
        refused(pattern, build(UNetParts::new(&base), plan), &base.origin, &want);
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
    let want = "{}: not a safetensors file: header too large; copy or download it again";
    open("file", &file, want);
    let module = golden_path("motion_v2.safetensors");
    let want = "{}: this is a motion module, and a base model (a folder in the diffusers layout, or a whole checkpoint) \
                is expected; give it with --motion";
    open("motion module", &module, want);
    let absent = dir.path().join("absent");
    let want = not("there is no such folder or file; `animatediff init --preset tiny DIR` makes a random one to try");
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
