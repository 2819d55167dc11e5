//! Files whose names are right and whose tensors are not: whatever is done with them ends in words.

use std::path::Path;

use animatediff::{
    assemble::{Motion, read_lora},
    convert::{Order, To, convert},
    inspect::inspect,
    weights::Dialect,
};
use tch::{Device, Kind, Tensor};

use crate::support::{golden_path, tensors_of, write};

/// What may stand where a matrix, a vector or a kernel is expected.
fn odd() -> Vec<Tensor> {
    let shapes: [&[i64]; 7] = [&[], &[0], &[1], &[3], &[0, 4], &[2, 3], &[1, 1, 1, 1, 1]];
    let mut tensors: Vec<Tensor> =
        shapes.iter().map(|shape| Tensor::ones(*shape, (Kind::Float, Device::Cpu))).collect();
    tensors.push(Tensor::ones([2, 2], (Kind::ComplexFloat, Device::Cpu)));
    tensors.push(Tensor::ones([4], (Kind::Bool, Device::Cpu)));
    tensors
}

/// Does everything that a file can be used for; only words may come of it.
fn use_it(path: &Path, out: &Path) {
    let _ = inspect(path).unwrap();
    let _ = Motion::read(path, None);
    let _ = read_lora(path, false);
    for (to, rank) in [
        (To::Names(Dialect::Official), None),
        (To::Names(Dialect::Diffusers), None),
        (To::Names(Dialect::Kohya), Some(2)),
        (To::Names(Dialect::Ldm), None),
    ] {
        let folder = to == To::Names(Dialect::Diffusers) && rank.is_none();
        let output = out.join(if folder { "folder" } else { "file.safetensors" });
        let order = Order { input: path.into(), output, to: Some(to), rank, overwrite: true, ..Order::default() };
        let _ = convert(&order);
    }
}

#[test]
fn tensors_of_any_shape_in_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.safetensors");
    let files = [
        "motion_v2.safetensors",
        "motion_lora.safetensors",
        "weights/kohya.safetensors",
        "weights/lycoris.safetensors",
        "weights/embedding_diffusers.safetensors",
        "base/unet/diffusion_pytorch_model.safetensors",
        "base/text_encoder/model.safetensors",
        "base/vae/diffusion_pytorch_model.safetensors",
    ];
    for file in files {
        let whole = tensors_of(&golden_path(file));
        // Steps that meet every kind of name in turn.
        let step = (whole.len() / 3).max(1) | 1;
        let names: Vec<&String> =
            whole.keys().step_by(step).chain(whole.keys().filter(|name| name.ends_with(".alpha")).take(1)).collect();
        // Each name meets a third of them; together the names meet all.
        let met = names
            .iter()
            .enumerate()
            .flat_map(|(index, name)| odd().into_iter().skip(index % 3).step_by(3).map(move |odd| (name, odd)));
        for (name, odd) in met {
            let others = whole
                .iter()
                .filter(|(other, _)| other.as_str() != name.as_str())
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
            write(&path, others.chain([((*name).clone(), odd)]));
            use_it(&path, dir.path());
        }
    }
}

#[test]
fn a_module_beside_the_image_unet_keeps_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let unet = || tensors_of(&golden_path("base/unet/diffusion_pytorch_model.safetensors"));
    for (version, mid, frames) in [("v1", false, 24), ("v2", true, 32), ("v3", false, 32)] {
        let cut = |(name, tensor): (String, Tensor)| match name.ends_with(".pe") {
            true => (name, tensor.narrow(1, 0, frames).contiguous()),
            false => (name, tensor),
        };
        let module = || {
            let all = tensors_of(&golden_path("motion_v2.safetensors"));
            all.into_iter().filter(move |(name, _)| mid || !name.starts_with("mid_block.")).map(cut)
        };
        for prefix in ["", "module.", "state_dict.module."] {
            let named = |(name, tensor): (String, Tensor)| (format!("{prefix}{name}"), tensor);
            write(&path, module().chain(unet()).map(named));
            let motion = Motion::read(&path, None).unwrap();
            assert_eq!(motion.config.version(), Some(version), "{prefix}");
            assert_eq!(inspect(&path).unwrap()[0].version.as_deref(), Some(version), "{prefix}");
        }
    }
}
