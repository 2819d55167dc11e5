//! Every kind of file by the names and shapes of the published ones, through the reader that users' files go through.
//!
//! The files are as large as the originals by their headers; their data are holes, which no disk keeps.

use std::{fs::File, io::Write, path::Path};

use animatediff::{
    assemble::{Motion, outline, read_adapter, read_motion_lora},
    inspect::{Report, inspect},
    model::unet::{self, UNet, motion},
    weights::{Content, Dialect, Identified, LoraFile},
};
use serde_json::json;

use crate::support::{Keys, keys, motion_keys, pair_keys, position_keys, table};

/// A float16 safetensors file of these names and shapes, whose data are a hole of zeros.
fn sparse(path: &Path, keys: &Keys) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in keys {
        let bytes = 2 * shape.iter().product::<i64>();
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [end, end + bytes]}));
        end += bytes;
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end as u64).unwrap();
}

fn with(keys: Keys, more: Keys) -> Keys {
    keys.into_iter().chain(more).collect()
}

fn prefixed(keys: Keys, prefix: &str) -> Keys {
    keys.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
}

/// The names of `keys` in another dialect.
fn renamed(keys: &Keys, content: Content, from: Dialect, to: Dialect) -> Keys {
    let (from, to) = (table(content, from), table(content, to));
    let name = |theirs: &String| to.export_name(&from.import_name(theirs).unwrap()?);
    keys.iter().filter_map(|(theirs, shape)| Some((name(theirs)?, shape.clone()))).collect()
}

/// What a file is, how many tensors of ours it makes, and that nothing is unknown or missing.
fn told(keys: &Keys) -> (Content, Dialect, usize, Report) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.safetensors");
    sparse(&path, keys);
    let file = Identified::read(&path).unwrap();
    let (content, dialect) = (file.format.content, file.format.dialect);
    assert_eq!(file.unknown(), Vec::<String>::new());
    let tensors = file.import(content).unwrap().len();
    // Looking at gigabytes of zeros would take a while: shapes are compared for what is small enough.
    let bytes: i64 = keys.values().map(|shape| 2 * shape.iter().product::<i64>()).sum();
    let report = if bytes < 300_000_000 { inspect(&path).unwrap().remove(0) } else { Report::default() };
    assert!(report.missing.is_empty() && report.misshapen.is_empty() && report.unknown.is_empty(), "{report:?}");
    (content, dialect, tensors, report)
}

#[test]
fn every_published_file_is_told_by_its_keys_and_maps_whole() {
    use Content::{Checkpoint, ControlNet, LowRank, MotionModule, SparseCtrl, TextEncoder, UNet, Vae};
    use Dialect::{Diffusers, Kohya, Ldm, Official};
    let module = |mid, frames| {
        let module = motion_keys(mid);
        with(position_keys(&module, frames), module)
    };
    let (lora, adapter) = (pair_keys(&motion_keys(true), 64), pair_keys(&keys("unet.txt"), 128));
    let nested = |wrapper: &str, keys| prefixed(keys, wrapper);
    let cases: [(&str, Keys, Content, Dialect, usize); 24] = [
        ("UNet", keys("unet.txt"), UNet, Diffusers, 686),
        ("VAE, older names", keys("vae.txt"), Vae, Diffusers, 248),
        ("text encoder", keys("text_encoder.txt"), TextEncoder, Diffusers, 196),
        ("checkpoint", keys("checkpoint_ldm.txt"), Checkpoint, Ldm, 686 + 248 + 196),
        ("v1", module(false, 24), MotionModule, Official, 520),
        ("v1, nested", nested("state_dict.", module(false, 24)), MotionModule, Official, 520),
        (
            "v1 of the official trainer",
            nested("state_dict.module.", with(module(false, 24), keys("unet.txt"))),
            MotionModule,
            Official,
            520,
        ),
        ("v3, no tables", motion_keys(false), MotionModule, Official, 520),
        ("v2", module(true, 32), MotionModule, Official, 546),
        ("v2, no tables", motion_keys(true), MotionModule, Official, 546),
        ("MotionAdapter v3", keys("motion_adapter_v3.txt"), MotionModule, Diffusers, 520),
        (
            "MotionAdapter v2",
            renamed(&motion_keys(true), MotionModule, Official, Diffusers),
            MotionModule,
            Diffusers,
            546,
        ),
        ("MotionLoRA", lora.clone(), LowRank, Official, 336),
        ("MotionLoRA, nested", nested("state_dict.", lora.clone()), LowRank, Official, 336),
        ("MotionLoRA, diffusers", renamed(&lora, LowRank, Official, Diffusers), LowRank, Diffusers, 336),
        ("adapter", adapter.clone(), LowRank, Official, 256),
        ("adapter, diffusers", renamed(&adapter, LowRank, Official, Diffusers), LowRank, Diffusers, 256),
        ("adapter, kohya", renamed(&adapter, LowRank, Official, Kohya), LowRank, Kohya, 256),
        ("kohya's LoRA", keys("lora_kohya.txt"), LowRank, Kohya, keys("lora_kohya.txt").len()),
        ("ControlNet", keys("controlnet.txt"), ControlNet, Diffusers, 340),
        ("ControlNet, LDM", keys("controlnet_ldm.txt"), ControlNet, Ldm, 340),
        ("SparseCtrl RGB", keys("sparse_rgb.txt"), SparseCtrl, Official, 478),
        ("SparseCtrl scribble", keys("sparse_scribble.txt"), SparseCtrl, Official, 492),
        ("SparseCtrl, nested", nested("controlnet.", keys("sparse_scribble.txt")), SparseCtrl, Official, 492),
    ];
    for (what, keys, content, dialect, count) in cases {
        let (found, names, tensors, _) = told(&keys);
        assert_eq!((found, names, tensors), (content, dialect, count), "{what}");
    }
}

/// A single file that lacks parts, or has them twice: pruned ones, and those with averaged weights.
#[test]
fn checkpoints_need_not_be_whole() {
    let whole = keys("checkpoint_ldm.txt");
    let part = |prefix: &str| {
        whole.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(a, b)| (a.clone(), b.clone())).collect::<Keys>()
    };
    let unet = part("model.diffusion_model.");
    let averaged: Keys = unet
        .iter()
        .map(|(name, shape)| {
            (format!("model_ema.{}", name.trim_start_matches("model.").replace('.', "")), shape.clone())
        })
        .collect();
    assert!(averaged.contains_key("model_ema.diffusion_modelinput_blocks00weight"));
    let left: Keys = [
        "betas",
        "alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "posterior_variance",
        "model_ema.decay",
        "model_ema.num_updates",
    ]
    .map(|name| (name.to_owned(), vec![1000]))
    .into();
    assert_eq!(told(&unet).2, 686);
    assert_eq!(told(&with(unet.clone(), part("cond_stage_model."))).2, 686 + 196);
    assert_eq!(told(&with(whole.clone(), with(averaged, left))).2, 686 + 248 + 196);
    let vae = part("first_stage_model.");
    assert_eq!((told(&vae).0, told(&vae).2), (Content::Vae, 248));
    let bare: Keys = vae.into_iter().map(|(name, shape)| (name.replace("first_stage_model.", ""), shape)).collect();
    assert_eq!((told(&bare).0, told(&bare).1, told(&bare).2), (Content::Vae, Dialect::Ldm, 248));
}

#[test]
fn motion_modules_and_low_rank_files_fit_the_published_unet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.safetensors");
    let names = |config: &motion::Config| outline(|params| UNet::new(params, &unet::Config::default(), Some(config)));
    for (config, mid, frames) in
        [(motion::Config::v1(), false, 24), (motion::Config::v2(), true, 32), (motion::Config::v3(), false, 32)]
    {
        let module = motion_keys(mid);
        sparse(&path, &with(position_keys(&module, frames), module));
        let motion = Motion::read(&path, None).unwrap();
        assert_eq!(motion.config, config);
        let wanted = names(&config).into_iter().filter(|(name, _)| name.contains("motion_modules."));
        for (name, shape) in wanted {
            assert_eq!(motion.tensors.shape(&name), Some(shape), "{name}");
        }
    }
    let model = |config| crate::support::hollow(names(&config));
    sparse(&path, &pair_keys(&motion_keys(true), 8));
    read_motion_lora(&path).unwrap().check_fit(&model(motion::Config::v2())).unwrap();
    sparse(&path, &pair_keys(&keys("unet.txt"), 8));
    read_adapter(&path).unwrap().check_fit(&model(motion::Config::v3())).unwrap();
    sparse(&path, &keys("lora_kohya.txt"));
    let lora = LoraFile::read(&path).unwrap();
    lora.unet.check_fit(&model(motion::Config::v3())).unwrap();
    lora.text_encoder.check_fit(&crate::support::hollow(keys("text_encoder.txt"))).unwrap();
    assert_eq!(
        3 * (lora.unet.len() + lora.text_encoder.len()),
        keys("lora_kohya.txt").len(),
        "down, up and alpha of each"
    );
}

/// MotionDirector's exporter puts `processor` before the last part of every path.
#[test]
fn motion_directors_names() {
    let path = "down_blocks.0.motion_modules.0.temporal_transformer";
    let block = format!("{path}.transformer_blocks.0");
    let ours = "unet.down_blocks.0.motion_modules.0";
    let table = table(Content::LowRank, Dialect::Official);
    for (theirs, layer) in [
        (format!("{block}.attention_blocks.0.processor.to_q_lora"), "transformer_blocks.0.attn1.to_q"),
        (format!("{block}.attention_blocks.1.processor.to_out_lora"), "transformer_blocks.0.attn2.to_out.0"),
        (format!("{block}.attention_blocks.1.to_out.processor.0_lora"), "transformer_blocks.0.attn2.to_out.0"),
        (format!("{block}.ff.net.0.processor.proj_lora"), "transformer_blocks.0.ff.net.0.proj"),
        (format!("{block}.ff.net.processor.2_lora"), "transformer_blocks.0.ff.net.2"),
        (format!("{path}.processor.proj_in_lora"), "proj_in"),
    ] {
        for (their, our) in [("down", "lora_A"), ("up", "lora_B")] {
            let wanted = Some(Some(format!("{ours}.{layer}.{our}.weight")));
            assert_eq!(table.import_name(&format!("{theirs}.{their}.weight")), wanted, "{theirs}");
        }
    }
}

#[test]
fn a_text_encoder_of_published_size_is_looked_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.safetensors");
    sparse(&path, &keys("text_encoder.txt"));
    let report = inspect(&path).unwrap().remove(0);
    assert_eq!((report.parameters, report.tensors), (123_060_480, 196));
    assert!(report.missing.is_empty() && report.not_finite.is_empty(), "{report:?}");
}
