//! Whether downloaded bytes are the ones the server announced.
//!
//! The hub's ETag is a hash of the content: SHA-256 for large files, and what git calls the blob id (SHA-1 of
//! `blob <length>\0` and the content) for small ones. They differ in length.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A hash of a file's content, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Sha256(String),
    GitBlob(String),
}

impl Checksum {
    /// Reads an ETag, with or without quotes and the mark of a weak one. `None`: it is no hash that is known here.
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        let digits = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        match digits.len() {
            64 => Some(Self::Sha256(digits)),
            40 => Some(Self::GitBlob(digits)),
            _ => None,
        }
    }

    /// The hash itself, which is also the blob's name in the cache.
    pub(super) fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }

    /// The hash, of the same kind as this one, that the file at `path` has.
    pub(super) fn of_file(&self, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        match self {
            Self::Sha256(_) => Ok(Self::Sha256(hash(Sha256::new(), file)?)),
            Self::GitBlob(_) => Ok(Self::GitBlob(hash(Sha1::new().chain_update(format!("blob {length}\0")), file)?)),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) => write!(f, "sha256 {digits}"),
            Self::GitBlob(digits) => write!(f, "git blob {digits}"),
        }
    }
}

fn hash<D: Digest>(mut digest: D, mut file: File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// The digits of a hash.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
