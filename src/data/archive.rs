//! What is in one tar archive of clips and captions: its headers and captions are read, clips are only found.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::faults::{DataError, fault};
use super::picture::has_picture_extension;
use crate::video::has_video_extension;

/// Bytes to which members are padded, and of the mark at the end.
const BLOCK: usize = 512;
/// The longest caption file that is read.
const CAPTION_BYTES: u64 = 1 << 20;
/// The keys that may hold the caption in a `.json`, in the order in which they are asked for.
const CAPTION_KEYS: [&str; 3] = ["caption", "text", "txt"];

/// What [`scan`] found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub clips: Vec<Clip>,
    pub rest: Rest,
}

/// What is in archives and makes no clip.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub clips: usize,
    pub captions: usize,
    /// The first of those that have no counterpart.
    pub first_lone: Option<String>,
    /// Pictures where pictures are no clips.
    pub pictures: usize,
    /// The first member with a name that is neither a clip's nor a caption's.
    pub first_other: Option<String>,
}

/// One clip of an archive.
#[derive(Debug)]
pub(super) struct Clip {
    /// Its name in the archive.
    pub file: String,
    pub caption: String,
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// Members of one key that follow one another.
#[derive(Default)]
struct Sample {
    key: String,
    video: Option<Place>,
    picture: Option<Place>,
    /// Of a `.txt`, or else of a `.json`.
    text: Option<String>,
    /// The caption in it, if it has one.
    json: Option<Option<String>>,
}

/// A member's name, its first byte and its bytes.
type Place = (String, u64, u64);

/// What a member is.
enum Part {
    Video,
    Picture,
    Text,
    Json,
    Other,
}

impl Part {
    /// By all that follows the first dot of its own name: `0001.depth.mp4` is not the clip `0001`.
    fn of(extension: &str) -> Part {
        let whole = PathBuf::from(format!("key.{extension}"));
        match extension.to_ascii_lowercase().as_str() {
            "txt" => Part::Text,
            "json" => Part::Json,
            extension if extension.contains('.') => Part::Other,
            _ if has_video_extension(&whole) => Part::Video,
            _ if has_picture_extension(&whole) => Part::Picture,
            _ => Part::Other,
        }
    }
}

/// Finds the clips of the archive at `path`, which stand beside their captions: members whose names are the same up to the first dot
/// of the file's own name, one after another. What follows that dot says what a member is: a video's extension, `txt` or `json`,
/// and anything else is left alone. If `pictures`, a picture is a clip where its key has no video. Names that begin with a dot are no
/// samples.
///
/// # Errors
/// With the archive, the member and the byte at which it begins: what is no tar, is cut off, holds a caption that is no text, or
/// holds one part of a key twice.
pub(super) fn scan(path: &Path, pictures: bool) -> Result<Found, DataError> {
    let unreadable = |error: std::io::Error| fault(path, format!("cannot be read ({error})"));
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    refuse_compressed(path, &mut file)?;
    let mut archive = tar::Archive::new(&file);
    let (mut found, mut sample, mut last) = (Found::default(), Sample::default(), String::from("its start"));
    let mut end = 0;
    let damaged = |last: &str, error: std::io::Error| {
        let way_out = "copy or download it again, or have `shards` name archives only";
        fault(path, format!("no tar archive, or damaged, after {last} ({error}); {way_out}"))
    };
    for member in archive.entries_with_seek().map_err(|error| damaged("its start", error))? {
        let mut member = member.map_err(|error| damaged(&last, error))?;
        let (offset, length) = (member.raw_file_position(), member.size());
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        last = format!("{name} at byte {offset}");
        if offset.checked_add(length).is_none_or(|end| end > bytes.min(u64::MAX - BLOCK as u64)) {
            let reason = format!("cut off in {last}: {length} bytes are announced, and the archive has {bytes}");
            return Err(fault(path, format!("{reason}; copy or download it again")));
        }
        end = (offset + length).next_multiple_of(BLOCK as u64);
        if !member.header().entry_type().is_file() {
            continue;
        }
        let Some((key, extension)) = split(&name) else { continue };
        if key != sample.key {
            found.add(std::mem::take(&mut sample));
            sample.key = key.to_owned();
        }
        let mut text = || caption_text(&mut member, length);
        let taken = match Part::of(extension) {
            Part::Text => text().and_then(|text| put(&mut sample.text, text.trim().to_owned())),
            Part::Json => text().and_then(|text| put(&mut sample.json, caption_in(&text)?)),
            Part::Video => put(&mut sample.video, (name, offset, length)),
            Part::Picture if pictures => put(&mut sample.picture, (name, offset, length)),
            Part::Picture => {
                found.rest.pictures += 1;
                Ok(())
            }
            Part::Other => {
                found.rest.first_other.get_or_insert(name);
                Ok(())
            }
        };
        taken.map_err(|why| fault(path, format!("{last}: {why}")))?;
    }
    found.add(sample);
    // An archive that was cut off between two members is told from a whole one by nothing else.
    let mut mark = [1; BLOCK];
    if file.read_exact_at(&mut mark, end).is_err() || mark != [0; BLOCK] {
        return Err(fault(path, format!("cut off after {last}: its end mark is missing; copy or download it again")));
    }
    Ok(found)
}

/// Fills an empty place.
fn put<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("its key has such a member already; the key, which ends at the first dot, has to be another \
                        for each clip"
            .into()),
    }
}

impl Found {
    fn add(&mut self, sample: Sample) {
        match (sample.video.or(sample.picture), sample.text.or(sample.json.flatten())) {
            (Some((file, offset, length)), Some(caption)) => self.clips.push(Clip { file, caption, offset, length }),
            (None, None) => {}
            (Some((file, ..)), None) => {
                self.rest.clips += 1;
                self.rest.first_lone.get_or_insert(file);
            }
            (None, Some(_)) => {
                self.rest.captions += 1;
                self.rest.first_lone.get_or_insert(sample.key);
            }
        }
    }
}

impl Rest {
    /// Adds what the archive at `path` has.
    pub fn add(&mut self, path: &Path, other: Rest) {
        let named = |name: Option<String>| name.map(|name| format!("{}: {name}", path.display()));
        self.clips += other.clips;
        self.captions += other.captions;
        self.pictures += other.pictures;
        self.first_lone = self.first_lone.take().or_else(|| named(other.first_lone));
        self.first_other = self.first_other.take().or_else(|| named(other.first_other));
    }
}

/// A member's key and the rest of its name after the first dot; none where its own name has no key.
fn split(name: &str) -> Option<(&str, &str)> {
    let own = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[own..].find('.') {
        Some(0) => None,
        Some(dot) => Some((&name[..own + dot], &name[own + dot + 1..])),
        None => Some((name, "")),
    }
}

fn refuse_compressed(path: &Path, file: &mut File) -> Result<(), DataError> {
    let mut head = [0; 4];
    let read = file.read(&mut head).and_then(|_| file.seek(SeekFrom::Start(0)));
    read.map_err(|error| fault(path, format!("cannot be read ({error})")))?;
    if head[..2] == [0x1f, 0x8b] || head == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(fault(
            path,
            "a compressed archive, in which no clip can be reached at once; unpack it to a plain .tar",
        ));
    }
    Ok(())
}

fn caption_text(member: &mut impl Read, length: u64) -> Result<String, String> {
    if length > CAPTION_BYTES {
        return Err(format!("a caption of {length} bytes; {CAPTION_BYTES} are the most"));
    }
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).map_err(|error| format!("cannot be read ({error})"))?;
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text; save it as UTF-8".into())
}

/// The caption in a JSON object; none if it has none of the keys.
fn caption_in(text: &str) -> Result<Option<String>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON ({error})"))?;
    let caption = CAPTION_KEYS.iter().find_map(|key| value.get(key)?.as_str());
    Ok(caption.map(|caption| caption.trim().to_owned()))
}
