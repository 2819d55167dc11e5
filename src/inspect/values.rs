//! One pass over all values: the hash of the bytes, and which tensors hold NaN or infinite ones.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::{
    hub::hexadecimal,
    native::MappedFile,
    weights::{NamedTensors, finite::all_finite},
};

/// Bytes that are looked at at once: both passes find them in the cache.
const CHUNK: usize = 1 << 20;

/// BLAKE3 over names and bytes, and the names of tensors that are not finite.
pub fn scan(tensors: &NamedTensors) -> (String, Vec<String>) {
    let names: Vec<&str> = tensors.names().collect();
    // What lies in a file is looked at there, side by side; the rest is read one by one.
    let stored: Vec<Option<(Kind, &[u8])>> = names.iter().map(|name| tensors.bytes(name)).collect();
    let mut scanned: Vec<Option<([u8; 32], bool)>> =
        stored.par_iter().map(|stored| stored.map(|(kind, bytes)| scan_bytes(kind, bytes))).collect();
    for (name, scanned) in names.iter().zip(&mut scanned) {
        if scanned.is_none() {
            let tensor = tensors.get(name).expect("it is listed").contiguous();
            let kind = tensor.kind();
            let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            *scanned = Some(scan_bytes(kind, &bytes));
        }
    }
    let mut hash = blake3::Hasher::new();
    let mut not_finite = Vec::new();
    for (name, (bytes, finite)) in names.iter().zip(scanned.into_iter().flatten()) {
        hash.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&bytes);
        if !finite {
            not_finite.push((*name).to_owned());
        }
    }
    (hash.finalize().to_hex().to_string(), not_finite)
}

fn scan_bytes(kind: Kind, bytes: &[u8]) -> ([u8; 32], bool) {
    let mut hash = blake3::Hasher::new();
    let mut finite = true;
    for chunk in bytes.chunks(CHUNK) {
        hash.update(chunk);
        finite &= all_finite(kind, chunk);
    }
    (*hash.finalize().as_bytes(), finite)
}

/// Files above this size are not hashed a second time.
const MOST_HASHED: u64 = 500_000_000;

/// SHA-256 of what follows the header of a safetensors file, in hexadecimal; `None` for other files and for large ones.
pub fn stored_hash(path: &Path) -> Option<String> {
    if std::fs::metadata(path).ok()?.len() > MOST_HASHED || path.is_dir() {
        return None;
    }
    let file = MappedFile::open(path).ok()?;
    let header = usize::try_from(u64::from_le_bytes(*file.first_chunk::<8>()?)).ok()?;
    Some(hexadecimal(&Sha256::digest(file.get(8usize.checked_add(header)?..)?)))
}
