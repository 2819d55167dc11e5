//! The zip around the pickle: which entry lies where in the file.
//!
//! Reads the format's central directory (PKWARE's APPNOTE, 4.3 and 4.5.3) and nothing of an entry until it is asked
//! for. Written out here rather than taken from a crate since a general reader spends hundreds of bytes on each record,
//! of which a hostile file can hold a million, and follows layouts (data before the archive, several directories) that
//! PyTorch never writes.

use std::collections::HashMap;
use std::ops::Range;

use super::PickleError;
use super::cursor::Cursor;
use super::error::shorten;

const MAX_ENTRIES: usize = 1 << 18;
const MAX_PICKLE_BYTES: usize = 1 << 26;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const END_BYTES: usize = 22;
const END_64_LOCATOR_BYTES: usize = 20;
/// The value that sends a 32-bit field to the ZIP64 record or extra field.
const IN_ZIP64: u64 = u32::MAX as u64;
const ENCRYPTED: u16 = 1;

/// The entries of an archive, by name.
pub(super) struct Archive<'a> {
    file: &'a [u8],
    entries: HashMap<&'a str, Entry>,
    directory: Directory,
    /// The folder that everything is in, with its `/`.
    root: &'a str,
}

/// One record of the central directory.
struct Entry {
    header: u64,
    stored: u64,
    size: u64,
    plain: bool,
}

/// Where the central directory is, and how many records it has.
struct Directory {
    start: usize,
    records: usize,
}

impl<'a> Archive<'a> {
    /// Reads the directory of `file`, and checks that it is PyTorch's and no TorchScript program.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, PickleError> {
        let directory = find_directory(file)?;
        let entries = read_entries(file, &directory)?;
        let root = find_root(&entries)?;
        let archive = Self { file, entries, directory, root };
        archive.refuse_torchscript()?;
        archive.check_byte_order()?;
        Ok(archive)
    }

    /// The bytes of `data.pkl`.
    pub(super) fn pickle(&self) -> Result<&'a [u8], PickleError> {
        let pickle = self.bytes("data.pkl")?.ok_or_else(|| broken("data.pkl is missing"))?;
        if pickle.len() > MAX_PICKLE_BYTES {
            return Err(PickleError::Limit { what: "bytes in data.pkl", limit: MAX_PICKLE_BYTES });
        }
        Ok(pickle)
    }

    /// Where the bytes of the storage `key` are in the file, if the archive has it.
    pub(super) fn storage(&self, key: &str) -> Result<Option<Range<usize>>, PickleError> {
        self.range(&format!("data/{key}"))
    }

    fn bytes(&self, name: &str) -> Result<Option<&'a [u8]>, PickleError> {
        Ok(self.range(name)?.map(|range| &self.file[range]))
    }

    /// Where the bytes of the entry `name` under the root are; checked to be inside the file.
    fn range(&self, name: &str) -> Result<Option<Range<usize>>, PickleError> {
        let name = format!("{}{name}", self.root);
        let Some(entry) = self.entries.get(name.as_str()) else { return Ok(None) };
        if !entry.plain || entry.stored != entry.size {
            return Err(PickleError::Compressed { entry: shorten(&name) });
        }
        let range = locate(self.file, entry, &name).filter(|range| range.end <= self.directory.start);
        range
            .map(Some)
            .ok_or_else(|| broken(format!("the entry `{}` is damaged or not inside the file", shorten(&name))))
    }

    fn refuse_torchscript(&self) -> Result<(), PickleError> {
        let is_program = |name: &str| {
            let inner = name.strip_prefix(self.root);
            inner.is_some_and(|inner| inner == "constants.pkl" || inner.starts_with("code/"))
        };
        match self.entries.keys().filter(|name| is_program(name)).min() {
            Some(entry) => Err(PickleError::TorchScript { entry: shorten(entry) }),
            None => Ok(()),
        }
    }

    fn check_byte_order(&self) -> Result<(), PickleError> {
        match self.bytes("byteorder")? {
            None | Some(b"little") => Ok(()),
            Some(other) => {
                let start = &other[..other.len().min(32)];
                Err(PickleError::ByteOrder { found: String::from_utf8_lossy(start).into_owned() })
            }
        }
    }
}

fn broken(reason: impl Into<String>) -> PickleError {
    PickleError::Archive { reason: reason.into() }
}

/// Finds the end record: the last one whose comment reaches exactly to the end of the file.
fn find_directory(file: &[u8]) -> Result<Directory, PickleError> {
    let last = file.len().checked_sub(END_BYTES).ok_or_else(|| broken("it is too short for a zip archive"))?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let (end, directory) = (first..=last)
        .rev()
        .find_map(|at| Some((at, parse_end(file, at)?)))
        .ok_or_else(|| broken("its end record is missing, so it is cut short"))?;
    let directory = parse_end_64(file, end, directory).ok_or_else(|| broken("its ZIP64 end record is damaged"))?;
    if directory.start > end {
        return Err(broken("its directory is not inside the file"));
    }
    if directory.records > MAX_ENTRIES {
        return Err(PickleError::Limit { what: "archive entries", limit: MAX_ENTRIES });
    }
    Ok(directory)
}

fn parse_end(file: &[u8], at: usize) -> Option<Directory> {
    let mut cursor = Cursor::new(file, at);
    if cursor.u32()? != END {
        return None;
    }
    let _disks = cursor.take(6)?;
    let records = cursor.u16()?.into();
    let _size = cursor.u32()?;
    let start = usize::try_from(cursor.u32()?).ok()?;
    let comment = usize::from(cursor.u16()?);
    (cursor.at() + comment == file.len()).then_some(Directory { start, records })
}

/// Replaces `directory` by what the ZIP64 record says, if a locator right before `end` points to one.
fn parse_end_64(file: &[u8], end: usize, directory: Directory) -> Option<Directory> {
    let Some(at) = end.checked_sub(END_64_LOCATOR_BYTES) else { return Some(directory) };
    let mut locator = Cursor::new(file, at);
    if locator.u32()? != END_64_LOCATOR {
        return Some(directory);
    }
    let _disk = locator.u32()?;
    let mut cursor = Cursor::new(file, usize::try_from(locator.u64()?).ok()?);
    if cursor.u32()? != END_64 {
        return None;
    }
    let _size_versions_disks_and_records_here = cursor.take(28)?;
    let records = usize::try_from(cursor.u64()?).ok()?;
    let _size = cursor.u64()?;
    let start = usize::try_from(cursor.u64()?).ok()?;
    Some(Directory { start, records })
}

fn read_entries<'a>(file: &'a [u8], directory: &Directory) -> Result<HashMap<&'a str, Entry>, PickleError> {
    let mut cursor = Cursor::new(file, directory.start);
    let mut entries = HashMap::new();
    for record in 0..directory.records {
        let (name, entry) = parse_entry(&mut cursor)
            .ok_or_else(|| broken(format!("record {record} of {} in its directory is damaged", directory.records)))?;
        let name = check_name(name)?;
        if entries.insert(name, entry).is_some() {
            return Err(PickleError::EntryName { entry: shorten(name), reason: "is there twice" });
        }
    }
    Ok(entries)
}

fn parse_entry<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], Entry)> {
    if cursor.u32()? != CENTRAL_HEADER {
        return None;
    }
    let _versions = cursor.u32()?;
    let flags = cursor.u16()?;
    let method = cursor.u16()?;
    let _time_and_checksum = cursor.u64()?;
    let mut stored = cursor.u32()?.into();
    let mut size = cursor.u32()?.into();
    let (name_len, extra_len, comment_len) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    let _disk_and_attributes = cursor.u64()?;
    let mut header = cursor.u32()?.into();
    let name = cursor.take(name_len.into())?;
    let extra = cursor.take(extra_len.into())?;
    let _comment = cursor.take(comment_len.into())?;
    widen(extra, [&mut size, &mut stored, &mut header])?;
    Some((name, Entry { header, stored, size, plain: method == 0 && flags & ENCRYPTED == 0 }))
}

/// Takes those of `fields` that do not fit into 32 bits from the ZIP64 extra field, which lists only them, in this
/// order.
fn widen(extra: &[u8], fields: [&mut u64; 3]) -> Option<()> {
    let mut wide = fields.into_iter().filter(|field| **field == IN_ZIP64).peekable();
    if wide.peek().is_none() {
        return Some(());
    }
    let mut cursor = Cursor::new(zip64_extra(extra)?, 0);
    for field in wide {
        *field = cursor.u64()?;
    }
    Some(())
}

fn zip64_extra(extra: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(extra, 0);
    loop {
        let (id, len) = (cursor.u16()?, cursor.u16()?);
        let content = cursor.take(len.into())?;
        if id == 1 {
            return Some(content);
        }
    }
}

/// Nothing is ever extracted, but a name that could leave a folder says that the file is not PyTorch's.
fn check_name(name: &[u8]) -> Result<&str, PickleError> {
    let refused = |reason| PickleError::EntryName { entry: shorten(&String::from_utf8_lossy(name)), reason };
    let text = std::str::from_utf8(name).map_err(|_| refused("is not UTF-8"))?;
    if text.is_empty() || text.contains('\0') {
        return Err(refused("is empty or has a zero byte"));
    }
    if text.contains('\\') {
        return Err(refused("has a backslash"));
    }
    if text.starts_with('/') || text.as_bytes().get(1) == Some(&b':') {
        return Err(refused("is an absolute path"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(refused("leaves its folder"));
    }
    Ok(text)
}

/// The folder of the one `data.pkl`, with its `/`.
fn find_root<'a>(entries: &HashMap<&'a str, Entry>) -> Result<&'a str, PickleError> {
    let is_root = |root: &&str| root.len() > 1 && root.find('/') == Some(root.len() - 1);
    let mut roots = entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(is_root);
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (Some(_), Some(_)) => Err(broken("it has more than one `data.pkl`")),
        (None, _) => Err(broken("it has no `NAME/data.pkl`, so it is a zip archive of something else")),
    }
}

/// Where the data of `entry` is: after its local header, which must carry the same name.
fn locate(file: &[u8], entry: &Entry, name: &str) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(file, usize::try_from(entry.header).ok()?);
    if cursor.u32()? != LOCAL_HEADER {
        return None;
    }
    let _version_to_sizes = cursor.take(22)?;
    let (name_len, extra_len) = (cursor.u16()?, cursor.u16()?);
    if cursor.take(name_len.into())? != name.as_bytes() {
        return None;
    }
    let _extra = cursor.take(extra_len.into())?;
    let start = cursor.at();
    let _data = cursor.take(usize::try_from(entry.size).ok()?)?;
    Some(start..cursor.at())
}
