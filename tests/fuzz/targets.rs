//! What holds for the readers of weight files whatever bytes they get. The short run in `tests/it/weights/hostile.rs` and
//! the targets in `fuzz_targets` call the same four functions.
//!
//! Each writes its input to a file in `dir`, in place of the one before, and reads it as a user's file is read; it panics
//! where the reader breaks a promise. What it returns is whether the file was accepted.

#[path = "zip.rs"]
pub mod zip;

use std::fs;
use std::path::Path;

use animatediff::weights::{pickle, read};

/// Tensors of more bytes than this are not read.
const LARGEST_READ: i64 = 1 << 20;
/// Longest message about a pickle, in bytes.
const LONGEST_MESSAGE: usize = 2000;

/// A file that may be safetensors.
pub fn safetensors(dir: &Path, bytes: &[u8]) -> bool {
    open(dir, "input.safetensors", bytes)
}

/// A `data.pkl`, in an archive that has storages under the names that PyTorch gives them.
pub fn pickle(dir: &Path, bytes: &[u8]) -> bool {
    archive(dir, &in_archive(bytes))
}

/// A file that may be PyTorch's archive.
pub fn archive(dir: &Path, bytes: &[u8]) -> bool {
    match pickle::read(bytes) {
        Ok(found) => found.tensors.iter().for_each(|(name, tensor)| {
            assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len(), "{name}");
            assert_eq!(tensor.shape.len(), tensor.stride.len(), "{name}");
        }),
        Err(error) => assert!(error.to_string().len() < LONGEST_MESSAGE, "{error}"),
    }
    open(dir, "input.pt", bytes)
}

/// The index of a model in two files, `a.safetensors` with `a` and `b.safetensors` with `b`.
pub fn index(dir: &Path, bytes: &[u8]) -> bool {
    for name in ["a", "b"] {
        let path = dir.join(format!("{name}.safetensors"));
        if !path.exists() {
            fs::write(path, shard(name)).unwrap();
        }
    }
    open(dir, "model.safetensors.index.json", bytes)
}

fn open(dir: &Path, name: &str, bytes: &[u8]) -> bool {
    let path = dir.join(name);
    // Some file systems wait for the disk where a file is overwritten, and not where it is made.
    drop(fs::remove_file(&path));
    fs::write(&path, bytes).unwrap();
    let tensors = match read(&path) {
        Ok(file) => file.tensors,
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(&*dir.to_string_lossy()), "the message names no file: {message}");
            return false;
        }
    };
    for name in tensors.names() {
        let (shape, kind) = (tensors.shape(name).unwrap(), tensors.kind(name).unwrap());
        let count = shape.iter().try_fold(1_i64, |product, &size| product.checked_mul(size));
        let bytes = count.and_then(|count| count.checked_mul(kind.elt_size_in_bytes() as i64));
        if bytes.is_some_and(|bytes| bytes <= LARGEST_READ) {
            let tensor = tensors.get(name).unwrap();
            assert_eq!((tensor.size(), tensor.kind()), (shape, kind), "{name}");
        }
    }
    true
}

fn in_archive(pickle: &[u8]) -> Vec<u8> {
    let keys: Vec<String> = (0..16).map(|key| format!("m/data/{key}")).collect();
    let mut entries = vec![("m/data.pkl", pickle)];
    entries.extend(keys.iter().map(|key| (key.as_str(), &[1; 128][..])));
    zip::archive(&entries)
}

/// A safetensors file of one number.
fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}
