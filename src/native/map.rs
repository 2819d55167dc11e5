//! A file mapped read-only into memory.

use std::{fs::File, io, ops::Deref, path::Path};

/// The bytes of a file, paged in as they are read.
///
/// A file that another process shortens while it is mapped ends this one with a bus error: weight files are replaced by
/// renaming, never rewritten in place.
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps `path`.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only; see the type's note for the one thing that can go wrong.
        Ok(MappedFile(unsafe { memmap2::Mmap::map(&file)? }))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
