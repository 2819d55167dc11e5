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

impl MappedFile {
    /// Has the pages of `range` no longer count as this process's memory; they are paged in again when they are read again.
    pub fn release(&self, range: std::ops::Range<usize>) {
        // SAFETY: the mapping is of a file, read-only: dropped pages come back with the same bytes.
        let advised =
            unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        // Advice is all it is: a system that does not take it keeps the pages until it needs them.
        drop(advised);
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
