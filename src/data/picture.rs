//! Still pictures, and folders of numbered ones that stand for a video.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::faults::Failure;
use crate::frame::Frame;
use crate::video::VideoError;

/// File name extensions, in lower case, that are taken for pictures.
pub const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Whether the name of `path` is that of a picture.
pub fn has_picture_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// Reads a PNG, JPEG or WebP. Whether it is one is decided by its content, not its name; transparency is dropped.
pub fn read(path: &Path) -> Result<Frame, Failure> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::Video(VideoError::NotFound { path: path.to_path_buf() }),
        _ => Failure::Video(VideoError::Unreadable { path: path.to_path_buf(), reason: error.to_string() }),
    })?;
    from_bytes(path, &bytes)
}

/// As [`read`], of a picture called `path` whose bytes are here.
pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Frame, Failure> {
    let picture = image::load_from_memory(bytes)
        .map_err(|error| Failure::Picture { path: path.to_path_buf(), reason: error.to_string() })?
        .into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(Frame { width, height, rgb: picture.into_raw() })
}

/// The pictures in `folder`, in the order of the numbers in their names: `2.png` comes before `10.png`.
pub fn frames_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unusable = |reason: String| Failure::Frames { path: folder.to_path_buf(), reason };
    let entries = std::fs::read_dir(folder).map_err(|error| unusable(format!("cannot be listed ({error})")))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unusable(format!("cannot be listed ({error})")))?.path();
        if has_picture_extension(&path) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(unusable("holds no PNG or JPEG frames; put numbered pictures there, or remove it".into()));
    }
    files.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// Reads the frames of a folder's listing at `indices`, which have to be below its length. All have to be of one size.
pub fn read_frames(folder: &Path, files: &[PathBuf], indices: &[usize]) -> Result<Vec<Frame>, Failure> {
    let mut frames: Vec<Frame> = Vec::with_capacity(indices.len());
    let mut previous = None;
    for &index in indices {
        let frame = match frames.last() {
            Some(last) if previous == Some(index) => last.clone(),
            _ => read(&files[index])?,
        };
        if let Some(first) = frames.first().filter(|first| (first.width, first.height) != (frame.width, frame.height)) {
            return Err(unlike(folder, &files[index], &frame, (first.width, first.height)));
        }
        frames.push(frame);
        previous = Some(index);
    }
    Ok(frames)
}

/// A frame in `folder` of another size than the others' `width` and `height`.
pub(super) fn unlike(folder: &Path, file: &Path, frame: &Frame, (width, height): (usize, usize)) -> Failure {
    let reason = format!(
        "{} is {}x{} pixels, and other frames are {width}x{height}; make them one size",
        file.display(),
        frame.width,
        frame.height
    );
    Failure::Frames { path: folder.to_path_buf(), reason }
}

/// Compares names as people count: runs of digits by their value, the rest letter by letter.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while !a_rest.is_empty() && !b_rest.is_empty() {
        let (a_part, a_tail) = part(a_rest);
        let (b_part, b_tail) = part(b_rest);
        let order = match (digits(a_part), digits(b_part)) {
            (Some(a), Some(b)) => a.len().cmp(&b.len()).then(a.cmp(b)),
            _ => a_part.cmp(b_part),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a_rest, b_rest) = (a_tail, b_tail);
    }
    a_rest.len().cmp(&b_rest.len()).then(a.cmp(b))
}

/// The leading run of digits, or of anything else, and what follows.
fn part(text: &str) -> (&str, &str) {
    let is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(text.len()))
}

/// A run of digits without leading zeros.
fn digits(part: &str) -> Option<&str> {
    part.starts_with(|c: char| c.is_ascii_digit()).then(|| part.trim_start_matches('0'))
}
