//! One clip as a list names it, and how it is written in bytes: in an index file, and for the hash that tells lists apart.

use std::path::Path;

/// One clip of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Path below the list's root.
    pub file: &'a str,
    /// The words that go with it.
    pub caption: &'a str,
    /// Where in which archive it is, if it is not a file of its own.
    pub member: Option<Member>,
}

/// A file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number of the archive.
    pub shard: u64,
    /// Its first byte in the archive.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl<'a> Row<'a> {
    /// The clip's name: its path without extension.
    pub fn id(&self) -> String {
        Path::new(self.file).with_extension("").to_string_lossy().into_owned()
    }

    /// Appends the archive's number and the place in it, if it is in one, then the two lengths and the two texts.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if let Some(Member { shard, offset, length }) = self.member {
            [shard, offset, length].into_iter().for_each(|number| write_number(out, number));
        }
        write_number(out, self.file.len() as u64);
        write_number(out, self.caption.len() as u64);
        out.extend_from_slice(self.file.as_bytes());
        out.extend_from_slice(self.caption.as_bytes());
    }

    /// Takes one row from the front of `bytes`, of a file in an archive if `in_archive`; `None` if they do not hold one.
    pub(super) fn read(bytes: &mut &'a [u8], in_archive: bool) -> Option<Row<'a>> {
        let member = if in_archive {
            let (shard, offset, length) = (read_number(bytes)?, read_number(bytes)?, read_number(bytes)?);
            Some(Member { shard, offset, length })
        } else {
            None
        };
        let (file, caption) = (read_number(bytes)?, read_number(bytes)?);
        Some(Row { file: read_text(bytes, file)?, caption: read_text(bytes, caption)?, member })
    }
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn write_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn read_text<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a str> {
    std::str::from_utf8(bytes.split_off(..usize::try_from(length).ok()?)?).ok()
}

/// The hash of a list: of its rows' bytes in their order.
#[derive(Default)]
pub(super) struct Fingerprint {
    hasher: blake3::Hasher,
    pending: Vec<u8>,
}

impl Fingerprint {
    /// The hasher works best on many bytes at once.
    const AT_ONCE: usize = 1 << 16;

    pub fn add(&mut self, row: Row) {
        row.write(&mut self.pending);
        self.hash_many();
    }

    /// As [`Fingerprint::add`], of rows that are bytes already.
    pub fn add_bytes(&mut self, rows: &[u8]) {
        self.pending.extend_from_slice(rows);
        self.hash_many();
    }

    fn hash_many(&mut self) {
        if self.pending.len() >= Self::AT_ONCE {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    /// `or_folder` says whether a file may be a folder of frames too.
    pub fn finish(mut self, or_folder: bool) -> blake3::Hash {
        self.hasher.update(&self.pending);
        self.hasher.update(&[u8::from(or_folder)]).finalize()
    }
}
