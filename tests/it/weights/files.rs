//! Element types, shards and metadata.

use std::{collections::BTreeMap, fs, path::Path};

use animatediff::{
    assemble::{ARCHITECTURE_KEY, Base, Motion, SCHEDULE_KEY, UNetParts},
    diffusion,
    model::unet::motion,
    nn::{NormScope, Pattern, Plan, Source},
    weights::{read, write::write_safetensors},
};
use tch::{Device, Kind, Tensor};

use crate::support::{
    Golden, OUTPUT, assert_close, base, copy_of_base, golden_path, motion as golden_motion, tensors_of, write,
    write_shards,
};

const KINDS: [Kind; 4] = [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double];

#[test]
fn every_element_type_is_read_as_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("types.safetensors");
    let values = Tensor::from_slice(&[-2i64, 0, 1, 77]).view([2, 2]);
    let kinds = [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double, Kind::Int64, Kind::Int, Kind::Int8];
    write(&path, kinds.iter().map(|kind| (format!("{kind:?}"), values.to_kind(*kind))));
    let mut tensors = read(&path).unwrap().tensors;
    assert_eq!(tensors.len(), kinds.len());
    for kind in kinds {
        let name = format!("{kind:?}");
        assert_eq!(tensors.shape(&name).unwrap(), [2, 2]);
        assert_eq!(tensors.get(&name).unwrap(), values.to_kind(kind));
        let taken = tensors.take(&name).unwrap();
        assert_eq!((taken.kind(), &taken), (kind, &values.to_kind(kind)));
    }
    assert!(tensors.is_empty() && tensors.left().is_empty());
    assert_eq!(tensors.origin_of("Half").unwrap(), path.display().to_string(), "kept after the tensor was taken");
    let bytes = Tensor::from_slice(&[0u8, 255]);
    write(&path, [("bytes".to_owned(), bytes.shallow_clone())]);
    assert_eq!(read(&path).unwrap().tensors.get("bytes").unwrap(), bytes);
}

/// Whatever a file holds, the model runs in the kind that was asked for.
#[test]
fn a_text_encoder_is_built_from_any_float_type() {
    let golden = Golden::load("text_encoder");
    for kind in KINDS {
        let dir = copy_of_base();
        let tensors = take(&dir.path().join("text_encoder/model.safetensors"));
        let cast = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(kind)));
        write(&dir.path().join("text_encoder/model.fp16.safetensors"), cast);
        let base = Base::open(dir.path()).unwrap();
        let (model, store) = base.text_encoder(Plan::frozen(), Device::Cpu, Kind::Float).unwrap();
        assert!(store.frozen.values().all(|tensor| tensor.kind() == Kind::Float));
        let tolerance = match kind {
            Kind::Half => 5e-3,
            Kind::BFloat16 => 5e-2,
            _ => OUTPUT,
        };
        assert_close(&format!("{kind:?}"), &model.forward(&golden.get("in.ids")), &golden.get("out.hidden"), tolerance);
    }
}

#[test]
fn frozen_weights_keep_the_kind_that_is_asked_for_and_trained_ones_are_float32() {
    let base = base();
    let parts = UNetParts { motion: Some(golden_motion("v3", NormScope::Frame)), ..UNetParts::new(&base) };
    let plan = Plan::train([Pattern::new("motion_modules.")]);
    let (_, store) = parts.build(plan, Device::Cpu, Kind::BFloat16).unwrap();
    assert_eq!((store.frozen.len(), store.trained.len()), (684, 520));
    assert!(store.frozen.values().all(|tensor| tensor.kind() == Kind::BFloat16 && !tensor.requires_grad()));
    assert!(store.trained.values().all(|tensor| tensor.kind() == Kind::Float && tensor.requires_grad()));
}

#[test]
fn a_vae_is_read_in_its_older_and_newer_names() {
    let golden = Golden::load("vae");
    let spellings = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    let dir = copy_of_base();
    let path = dir.path().join("vae/diffusion_pytorch_model.safetensors");
    // Older names, and weights that are 1×1 convolutions, as in files converted from single-file checkpoints.
    let older = |(name, tensor): (String, Tensor)| {
        if !name.contains(".attentions.") {
            return (name, tensor);
        }
        let rename = |name: String, (new, old): (&str, &str)| name.replace(&format!(".{new}."), &format!(".{old}."));
        let tensor = if tensor.dim() == 2 { tensor.unsqueeze(-1).unsqueeze(-1) } else { tensor };
        (spellings.into_iter().fold(name, rename), tensor)
    };
    let tensors: Vec<_> = take(&path).into_iter().map(older).collect();
    assert!(tensors.iter().any(|(name, _)| name.ends_with("attentions.0.proj_attn.weight")));
    write(&path, tensors);
    let vae = Base::open(dir.path()).unwrap().vae(Device::Cpu, Kind::Float).unwrap();
    assert_close("image", &vae.decode(&golden.get("in.latents")), &golden.get("out.image"), OUTPUT);
}

#[test]
fn shards_are_one_model() {
    let want = tensors_of(&golden_path("base/text_encoder/model.safetensors"));
    let indices =
        ["model.safetensors.index.json", "model.fp16.safetensors.index.json", "model.safetensors.index.fp16.json"];
    for index in indices {
        let dir = tempfile::tempdir().unwrap();
        write_shards(dir.path(), index, &want);
        let got = read(dir.path()).unwrap().tensors;
        assert!(got.names().eq(want.keys()), "{index}");
        for (name, want) in &want {
            assert_eq!(&got.get(name).unwrap(), want, "{index}: {name}");
        }
    }
}

#[test]
fn the_architecture_is_told_from_the_keys_or_the_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("module.safetensors");
    let module = tensors_of(&golden_path("motion_v2.safetensors"));
    let is_mid = |name: &str| name.starts_with("mid_block.");
    let is_table = |name: &str| name.ends_with(".pe");
    // What is kept of the v2 file, the frames of its tables, and what it is then.
    let cases: [(&str, bool, Option<i64>, motion::Config); 5] = [
        ("v2", true, Some(32), motion::Config::v2()),
        ("v2 without tables", true, None, motion::Config::v2()),
        ("v3", false, Some(32), motion::Config::v3()),
        ("v3 without tables", false, None, motion::Config::v3()),
        ("v1", false, Some(24), motion::Config::v1()),
    ];
    for (what, mid, frames, want) in cases {
        let kept = module.iter().filter(|(name, _)| (mid || !is_mid(name)) && (frames.is_some() || !is_table(name)));
        let cut = |(name, tensor): (&String, &Tensor)| match frames {
            Some(frames) if is_table(name) => (name.clone(), tensor.narrow(1, 0, frames).contiguous()),
            _ => (name.clone(), tensor.shallow_clone()),
        };
        write(&path, kept.map(cut));
        let motion = Motion::read(&path, None).unwrap();
        assert_eq!(motion.config, want, "{what}");
        assert_eq!(motion.tensors.len(), if mid { 546 } else { 520 }, "{what}");
    }

    let config = motion::Config { motion_norm: NormScope::Clip, ..motion::Config::v2() };
    let metadata = BTreeMap::from([(ARCHITECTURE_KEY.to_owned(), serde_json::to_string(&config).unwrap())]);
    write_safetensors(&path, module.iter(), &metadata).unwrap();
    assert_eq!(Motion::read(&path, None).unwrap().config, config, "metadata");
    assert_eq!(Motion::read(&path, None).unwrap().noise_scheduler_kwargs, diffusion::Config::default(), "the official");
    let told = motion::Config { use_inflated_groupnorm: false, ..motion::Config::v2() };
    assert_eq!(Motion::read(&path, Some(told.clone())).unwrap().config, told, "what the user says comes first");

    let metadata = BTreeMap::from([(SCHEDULE_KEY.to_owned(), r#"{"beta_schedule": "scaled_linear"}"#.to_owned())]);
    write_safetensors(&path, module.iter(), &metadata).unwrap();
    let read = Motion::read(&path, None).unwrap();
    assert_eq!(read.noise_scheduler_kwargs, diffusion::Config::scaled_linear(), "metadata");
    let metadata = BTreeMap::from([(SCHEDULE_KEY.to_owned(), r#"{"beta_start": 2.0}"#.to_owned())]);
    write_safetensors(&path, module.iter(), &metadata).unwrap();
    let message = Motion::read(&path, None).err().expect("a β above 1 is none").to_string();
    assert!(message.contains(&path.display().to_string()) && message.contains("`beta_start`"), "{message}");
}

#[test]
fn checkpoints_of_the_official_trainer_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let mut all = tensors_of(&golden_path("motion_v2.safetensors"));
    all.extend(tensors_of(&golden_path("base/unet/diffusion_pytorch_model.safetensors")));
    // The whole UNet, every name with a prefix: only the motion modules are taken.
    write(&path, all.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)));
    let read = Motion::read(&path, None).unwrap();
    let want = Motion::read(&golden_path("motion_v2.safetensors"), None).unwrap();
    assert!(read.tensors.names().eq(want.tensors.names()));
    assert_eq!(read.config, want.config);
}

/// The tensors of a file, which is removed.
fn take(path: &Path) -> BTreeMap<String, Tensor> {
    let tensors = tensors_of(path);
    fs::remove_file(path).unwrap();
    tensors
}
