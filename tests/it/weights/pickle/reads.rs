//! What PyTorch saved is read back element by element.

use std::collections::BTreeMap;

use animatediff::weights::pickle::{Container, PickledTensor, looks_like, read};
use safetensors::SafeTensors;

use super::{fixture, zip};

/// The elements of `tensor` in row-major order, gathered one by one.
fn gather(file: &[u8], tensor: &PickledTensor) -> Vec<u8> {
    let size = tensor.dtype.bitsize() / 8;
    let bytes = &file[tensor.range.clone()];
    let count: usize = tensor.shape.iter().product();
    let mut out = Vec::new();
    for mut flat in 0..count {
        let mut at = 0;
        for (len, stride) in tensor.shape.iter().zip(&tensor.stride).rev() {
            at += flat % len * stride;
            flat /= len;
        }
        out.extend(&bytes[at * size..(at + 1) * size]);
    }
    out
}

fn check(name: &str) {
    let file = fixture(&format!("{name}.pt"));
    assert_eq!(looks_like(&file), Some(Container::Zip));
    let found = read(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
    let stored = fixture(&format!("{name}.safetensors"));
    let expected = SafeTensors::deserialize(&stored).unwrap();
    let found: BTreeMap<_, _> = found.tensors.into_iter().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), BTreeMap::from_iter(expected.tensors()).keys().collect::<Vec<_>>());
    for (key, view) in expected.tensors() {
        let tensor = &found[&key];
        assert_eq!((tensor.dtype, &tensor.shape[..]), (view.dtype(), view.shape()), "{name}: {key}");
        assert_eq!(gather(&file, tensor), view.data(), "{name}: {key}");
    }
}

#[test]
fn every_dtype() {
    check("dtypes");
}

#[test]
fn views_that_share_a_storage() {
    check("views");
    let file = fixture("views.pt");
    let found: BTreeMap<_, _> = read(&file).unwrap().tensors.into_iter().collect();
    assert_eq!(found["transposed"].range, found["base"].range);
    assert_eq!(found["expanded"].stride, [0, 1]);
    assert_eq!(found["expanded"].range.len(), 8);
    assert!(found["empty"].range.is_empty());
}

#[test]
fn parameters() {
    check("parameters");
}

#[test]
fn every_protocol_with_metadata() {
    for protocol in 2..=5 {
        check(&format!("module{protocol}"));
    }
}

#[test]
fn lightning_checkpoint() {
    check("lightning");
    let values = read(&fixture("lightning.pt")).unwrap().values;
    let expected = [
        ("epoch", "3"),
        ("global_step", "10"),
        ("hyper_parameters.flag", "true"),
        ("hyper_parameters.lr", "0.0001"),
        ("hyper_parameters.name", "tiny"),
        ("negative", "-5"),
        ("pytorch-lightning_version", "1.4.2"),
    ];
    assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn textual_inversion() {
    check("inversion");
    let values = read(&fixture("inversion.pt")).unwrap().values;
    assert_eq!((values["name"].as_str(), values["step"].as_str()), ("x", "5"));
}

#[test]
fn a_lone_tensor() {
    check("tensor");
}

#[test]
fn numpy_scalars_are_left_out() {
    check("numpy");
    check("numpy3");
}

/// The only fixture of protocols 0 and 1 that is not PyTorch's, which cannot write its storages there.
#[test]
fn old_spellings() {
    let pickle = b"(dp0\nVna\\u00efve\\U0001f600\nI7\nsS'quoted'\nF1.5\nsVflag\nI01\nsVlong\nL-12L\nsVlist\n(lp1\nNas.";
    let values = read(&zip::wrap(pickle)).unwrap().values;
    let expected = [("flag", "true"), ("long", "-12"), ("na\u{ef}ve\u{1f600}", "7"), ("quoted", "1.5")];
    assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn python2_dictionaries() {
    let pickle = b"\x80\x02ccollections\nOrderedDict\n]]U\x01aK\x05ea\x85R.";
    assert!(read(&zip::wrap(pickle)).is_err());
    let pickle = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x05ee\x85R.";
    assert_eq!(read(&zip::wrap(pickle)).unwrap().values["a"], "5");
}

/// `range` of a directory with 64-bit fields and a locator, as a large archive has them.
#[test]
fn zip64() {
    let mut file = zip::archive(&[("m/data.pkl", b"\x80\x02}U\x01aK\x05s.")]);
    let end = file.split_off(file.len() - 22);
    let start = u64::from(u32::from_le_bytes(end[16..20].try_into().unwrap()));
    let mut name_and_extra = file.split_off(start as usize + 46);
    for field in [20, 24, 42] {
        file[start as usize + field..][..4].fill(0xff);
    }
    file[start as usize + 30] = 28;
    name_and_extra.extend([1, 0, 24, 0]);
    for field in [10_u64, 10, 0] {
        name_and_extra.extend(field.to_le_bytes());
    }
    file.extend(name_and_extra);
    let record = file.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend([0; 28]);
    for field in [1, 0, start] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(record.to_le_bytes());
    file.extend([1, 0, 0, 0]);
    file.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    assert_eq!(read(&file).unwrap().values["a"], "5");
}
