//! Hashes of what a step is made from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

/// The BLAKE3 hash of a file, or of a folder: of the names and hashes of all files in it but texts for people (`.md`), which decide
/// about nothing.
pub(super) fn of_path(path: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    collect(path, PathBuf::new(), &mut files)?;
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in files {
        hasher.update(name.as_os_str().as_encoded_bytes()).update(&[0]).update(hash.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A short name for `inputs`.
pub(super) fn of_json(inputs: &Value) -> String {
    blake3::hash(inputs.to_string().as_bytes()).to_hex()[..16].to_owned()
}

fn collect(path: &Path, name: PathBuf, files: &mut BTreeMap<PathBuf, blake3::Hash>) -> Result<()> {
    let unreadable = || format!("{}: cannot be read", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            collect(&entry.path(), name.join(entry.file_name()), files)?;
        }
        return Ok(());
    }
    if name.extension().is_some_and(|it| it == "md") {
        return Ok(());
    }
    files.insert(name, blake3::hash(&fs::read(path).with_context(unreadable)?));
    Ok(())
}
