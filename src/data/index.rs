//! The index of a list: the same list in a file that is mapped, so that ten million clips open at once and stay on disk. It is made
//! of a CSV, or of what a scan of tar archives found.
//!
//! Rows stand in blocks of sixteen. A table at the end of the file has, for each block, where it ends and the start of
//! its hash; the header has the hash of the table and its own. So opening reads the header and the table (11 MB for ten
//! million rows), a row costs one block, and whatever is damaged is noticed before it is believed.
//!
//! | bytes | header |
//! |---|---|
//! | 8 | `ADINDEX` and a line feed |
//! | 4, 4 | version; flags: 1 files may be folders of frames, 2 rows are paths relative to the source's folder, 4 they are in archives |
//! | 8, 8 | rows; rows whose caption is empty |
//! | 8, 8 | where the blocks end and the table begins; where the table ends and the source begins |
//! | 8, 8 | a CSV's bytes and its time of change, nanoseconds since 1970 |
//! | 32 | fingerprint of all rows |
//! | 32 | BLAKE3 of the table and the source |
//! | 32 | BLAKE3 of the header up to here |
//!
//! Numbers are little-endian. The source is the CSV's path, or JSON that names the archives. A row is two lengths (seven bits a byte,
//! lowest first) and two texts: file and caption; of an archive, its number, the file's first byte and its bytes come first.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use super::faults::{DataError, Failure, fault};
use super::rows::{Fingerprint, Row};
use super::table::Table;
use crate::files::{self, disk::Output};
use crate::native::MappedFile;

const MAGIC: [u8; 8] = *b"ADINDEX\n";
const VERSION: u32 = 1;
const HEADER: usize = 160;
/// Rows of one block: some two kilobytes, which hash in two microseconds.
const BLOCK_ROWS: usize = 16;
/// Bytes of a block's entry in the table: its end and the first half of a quarter of its hash.
const ENTRY: usize = 16;
const FOLDERS: u32 = 1;
const RELATIVE: u32 = 2;
const ARCHIVES: u32 = 4;
/// After so many rows the pages that they were on are let go: otherwise an epoch would bring the whole file into memory.
const RELEASE_AFTER: usize = 128;

/// Whether the file at `path` begins as an index does, whatever its name.
pub fn is_index(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == MAGIC
}

/// What [`build`] made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Rows of the CSV.
    pub clips: usize,
    /// Of these, rows without a caption.
    pub empty_captions: usize,
    /// Bytes of the index.
    pub bytes: u64,
    /// The list's fingerprint: [`super::Dataset::fingerprint`].
    pub fingerprint: String,
}

/// Writes the index of the CSV at `csv` to `out`, replacing what is there.
///
/// # Errors
/// Those of the CSV, with file and line ([`DataError`]); and those of writing, after which `out` is what it was.
pub fn build(csv: &Path, out: &Path) -> Result<Summary> {
    let mut table = Table::open(csv)?;
    let flags = u32::from(table.names_folders()) * FOLDERS + u32::from(table.names_paths()) * RELATIVE;
    write(out, flags, |rows| {
        let source = Source::of(csv)?;
        while let Some((file, caption)) = table.next()? {
            rows.push(Row { file: &file, caption, member: None })?;
        }
        if rows.count == 0 { Err(table.empty().into()) } else { Ok(source) }
    })
}

/// Writes the index of archives to `out`: of the rows that `fill` gives, which tells of the archives in words of its own.
pub(super) fn build_of_archives(out: &Path, fill: impl FnOnce(&mut Writer) -> Result<String>) -> Result<Summary> {
    write(out, ARCHIVES, |rows| Ok(Source { text: fill(rows)?, bytes: 0, changed: 0 }))
}

fn write(out: &Path, flags: u32, fill: impl FnOnce(&mut Writer) -> Result<Source>) -> Result<Summary> {
    files::write_atomic(out, |file| {
        file.write_all(&[0; HEADER])?;
        let mut writer = Writer::new(file);
        let source = fill(&mut writer)?;
        writer.finish(flags, &source)
    })
}

/// What an index was made of.
struct Source {
    /// The CSV's path, or what is known of archives.
    text: String,
    bytes: u64,
    changed: u64,
}

impl Source {
    fn of(path: &Path) -> Result<Source> {
        let cannot = || format!("{}: cannot be read", path.display());
        let path = path.canonicalize().with_context(cannot)?;
        let (bytes, changed) = size_and_change(&path).with_context(cannot)?;
        match path.to_str() {
            Some(text) => Ok(Source { text: text.to_owned(), bytes, changed }),
            None => bail!("{}: a path that is not UTF-8 text; rename it", path.display()),
        }
    }
}

/// Bytes of a file and when it was changed, nanoseconds since 1970.
pub(super) fn size_and_change(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Ok((metadata.len(), changed))
}

/// Rows on their way into blocks.
pub(super) struct Writer<'a> {
    out: &'a mut BufWriter<Output>,
    block: Vec<u8>,
    table: Vec<u8>,
    fingerprint: Fingerprint,
    /// Rows so far.
    pub count: usize,
    empty: usize,
    end: u64,
}

impl Writer<'_> {
    fn new(out: &mut BufWriter<Output>) -> Writer<'_> {
        let (block, table, fingerprint) = (Vec::new(), Vec::new(), Fingerprint::default());
        Writer { out, block, table, fingerprint, count: 0, empty: 0, end: 0 }
    }

    /// Appends one row.
    pub fn push(&mut self, row: Row) -> io::Result<()> {
        row.write(&mut self.block);
        self.count += 1;
        self.empty += usize::from(row.caption.is_empty());
        if self.count.is_multiple_of(BLOCK_ROWS) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.out.write_all(&self.block)?;
            self.end += self.block.len() as u64;
            self.table.extend_from_slice(&self.end.to_le_bytes());
            self.table.extend_from_slice(&check(&self.block));
            self.fingerprint.add_bytes(&self.block);
            self.block.clear();
        }
        Ok(())
    }

    fn finish(mut self, flags: u32, source: &Source) -> Result<Summary> {
        self.flush()?;
        let text = source.text.as_bytes();
        let fingerprint = self.fingerprint.finish(flags & FOLDERS != 0);
        let header = Header {
            flags,
            rows: self.count as u64,
            empty: self.empty as u64,
            blocks_end: HEADER as u64 + self.end,
            table_end: HEADER as u64 + self.end + self.table.len() as u64,
            source_bytes: source.bytes,
            source_changed: source.changed,
            fingerprint: *fingerprint.as_bytes(),
            tail: *blake3::Hasher::new().update(&self.table).update(text).finalize().as_bytes(),
        };
        self.out.write_all(&self.table)?;
        self.out.write_all(text)?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header.to_bytes())?;
        Ok(Summary {
            clips: self.count,
            empty_captions: self.empty,
            bytes: header.table_end + text.len() as u64,
            fingerprint: fingerprint.to_hex().to_string(),
        })
    }
}

/// The part of a block's hash that the table keeps.
fn check(block: &[u8]) -> [u8; 8] {
    *blake3::hash(block).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

struct Header {
    flags: u32,
    rows: u64,
    empty: u64,
    blocks_end: u64,
    table_end: u64,
    source_bytes: u64,
    source_changed: u64,
    fingerprint: [u8; 32],
    tail: [u8; 32],
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        let numbers = [self.rows, self.empty, self.blocks_end, self.table_end, self.source_bytes, self.source_changed];
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&self.tail);
        let own = blake3::hash(&bytes);
        bytes.extend_from_slice(own.as_bytes());
        bytes
    }

    /// Reads the header of a file of `length` bytes. The reason if it is not one that holds together.
    fn read(bytes: &[u8]) -> Result<Header, String> {
        let Some((header, own)) = bytes.get(..HEADER).and_then(|header| header.split_last_chunk::<32>()) else {
            return Err(format!("cut off: {} bytes, and the header has {HEADER}", bytes.len()));
        };
        let mut rest = header;
        let magic = take::<8>(&mut rest);
        if magic != MAGIC {
            return Err("not an index".into());
        }
        let version = u32::from_le_bytes(take(&mut rest));
        if version != VERSION {
            return Err(format!("version {version} of the format, and this program reads {VERSION}"));
        }
        if blake3::hash(header).as_bytes() != own {
            return Err("damaged: its header is not what was written".into());
        }
        let flags = u32::from_le_bytes(take(&mut rest));
        let [rows, empty, blocks_end, table_end, source_bytes, source_changed] =
            std::array::from_fn(|_| u64::from_le_bytes(take(&mut rest)));
        let (fingerprint, tail) = (take(&mut rest), take(&mut rest));
        Ok(Header { flags, rows, empty, blocks_end, table_end, source_bytes, source_changed, fingerprint, tail })
    }
}

/// The next `N` bytes of a header whose length is known.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (front, rest) = bytes.split_first_chunk().expect("the header is long enough");
    *bytes = rest;
    *front
}

/// An open index.
pub(super) struct Index {
    path: PathBuf,
    file: MappedFile,
    flags: u32,
    rows: usize,
    empty: usize,
    fingerprint: blake3::Hash,
    /// Where the blocks end and the table begins.
    blocks_end: usize,
    /// What it was made of: [`Source::text`].
    source: String,
    reads: AtomicUsize,
}

impl Index {
    /// Maps the index at `path` and checks its header and its table. The rows are checked when they are read.
    pub fn open(path: &Path) -> Result<Index, DataError> {
        let file = MappedFile::open(path).map_err(|error| fault(path, format!("cannot be read ({error})")))?;
        let remake = |reason: String| fault(path, format!("{reason}; make it again with `animatediff data index`"));
        let header = Header::read(&file).map_err(remake)?;
        let (blocks_end, table_end) = (header.blocks_end as usize, header.table_end as usize);
        let blocks = header.rows.div_ceil(BLOCK_ROWS as u64);
        let promised = blocks.checked_mul(ENTRY as u64).and_then(|table| header.blocks_end.checked_add(table));
        if promised != Some(header.table_end) || table_end > file.len() || blocks_end < HEADER || blocks == 0 {
            let found = file.len();
            return Err(remake(format!("cut off or damaged: {found} bytes, and its header tells of {table_end}")));
        }
        if *blake3::hash(&file[blocks_end..]).as_bytes() != header.tail {
            return Err(remake("cut off or damaged: its table is not what was written".into()));
        }
        let source = std::str::from_utf8(&file[table_end..]).map_err(|error| remake(error.to_string()))?;
        let source = source.to_owned();
        if header.flags & ARCHIVES == 0 {
            check_source(path, Path::new(&source), &header)?;
        }
        let fingerprint = header.fingerprint.into();
        let (rows, empty, flags) = (header.rows as usize, header.empty as usize, header.flags);
        let (path, reads) = (path.to_path_buf(), AtomicUsize::new(0));
        Ok(Index { path, file, flags, rows, empty, fingerprint, blocks_end, source, reads })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn empty_captions(&self) -> usize {
        self.empty
    }

    pub fn fingerprint(&self) -> String {
        self.fingerprint.to_hex().to_string()
    }

    /// Whether a file may also be a folder of frames of that name without its extension.
    pub fn names_folders(&self) -> bool {
        self.flags & FOLDERS != 0
    }

    /// The CSV's folder, if files may be relative to it.
    pub fn source_folder(&self) -> Option<PathBuf> {
        (self.flags & RELATIVE != 0).then(|| Path::new(&self.source).parent().unwrap_or(Path::new("")).to_path_buf())
    }

    /// What was told of the archives when it was made of some.
    pub fn archives(&self) -> Option<&str> {
        (self.flags & ARCHIVES != 0).then_some(&self.source)
    }

    /// Row number `item`. [`Failure::List`] if its block is not what was written.
    pub fn row(&self, item: usize) -> Result<Row<'_>, Failure> {
        let row = self.find(item).ok_or_else(|| Failure::List {
            path: self.path.clone(),
            reason: format!("damaged at row {item}; make it again with `animatediff data index`"),
        });
        if self.reads.fetch_add(1, Ordering::Relaxed) % RELEASE_AFTER == RELEASE_AFTER - 1 {
            self.file.release(0..self.blocks_end);
        }
        row
    }

    fn find(&self, item: usize) -> Option<Row<'_>> {
        let (block, within) = (item / BLOCK_ROWS, item % BLOCK_ROWS);
        let (end, expected) = self.entry(block)?;
        let start = if block == 0 { 0 } else { self.entry(block - 1)?.0 };
        let mut bytes = self.file.get(HEADER..self.blocks_end)?.get(start..end)?;
        if check(bytes) != expected {
            return None;
        }
        let in_archive = self.flags & ARCHIVES != 0;
        for _ in 0..within {
            Row::read(&mut bytes, in_archive)?;
        }
        Row::read(&mut bytes, in_archive)
    }

    /// Where block number `block` ends, counted from the first block, and its check.
    fn entry(&self, block: usize) -> Option<(usize, [u8; 8])> {
        let table = self.file.get(self.blocks_end..)?;
        let entry = table.get(block.checked_mul(ENTRY)?..)?.first_chunk::<ENTRY>()?;
        let (end, check) = entry.split_first_chunk::<8>()?;
        Some((usize::try_from(u64::from_le_bytes(*end)).ok()?, *check.first_chunk()?))
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Refuses the index of a CSV that was written anew since. A CSV that is not there any more is not missed.
fn check_source(path: &Path, source: &Path, header: &Header) -> Result<(), DataError> {
    match size_and_change(source) {
        Ok((bytes, changed)) if (bytes, changed) != (header.source_bytes, header.source_changed) => Err(fault(
            path,
            format!("{} has changed since; make the index again with `animatediff data index`", source.display()),
        )),
        _ => Ok(()),
    }
}
