//! The list of a checkpoint's files with their sizes and BLAKE3 hashes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::files::failed;

/// Raised when the layout of a checkpoint folder changes.
pub(super) const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub format: u32,
    pub step: i64,
    pub files: BTreeMap<String, FileDigest>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileDigest {
    pub size: u64,
    pub blake3: String,
}

impl Manifest {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(|e| failed(path, "read", e))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|e| failed(path, "parse", e))?;
        if manifest.format != FORMAT {
            bail!("{}: format {} is not known to this version, which reads {FORMAT}", path.display(), manifest.format);
        }
        match manifest.files.keys().find(|name| !is_plain_name(name)) {
            Some(name) => bail!("{}: `{name}` is not a plain file name", path.display()),
            None => Ok(manifest),
        }
    }
}

impl FileDigest {
    /// Compares the file with what was recorded when it was written.
    pub fn check(&self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| failed(path, "open", e))?;
        let size = file.metadata().map_err(|e| failed(path, "read", e))?.len();
        if size != self.size {
            bail!("{}: {size} bytes, and the manifest says {}", path.display(), self.size);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(|e| failed(path, "read", e))?;
        if hasher.finalize().to_hex().as_str() != self.blake3 {
            bail!("{}: the content differs from what the manifest recorded", path.display());
        }
        Ok(())
    }
}

/// A name that stays inside its folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(part)), None) if part == name)
}

/// Hashes and counts what it passes on.
pub(super) struct HashingWriter<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> HashingWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, hasher: blake3::Hasher::new() }
    }

    pub fn finish(mut self) -> io::Result<FileDigest> {
        self.out.flush()?;
        Ok(FileDigest { size: self.hasher.count(), blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
