//! Folders of clips, with captions in `.txt` files of the same name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Config;
use super::dataset::Item;
use super::faults::{DataError, fault};
use super::picture::{has_picture_extension, natural};
use crate::video::has_video_extension;

/// What a folder of clips holds, sorted by what it may be.
#[derive(Default)]
struct Listing {
    clips: Vec<String>,
    pictures: Vec<String>,
    /// Caption files by the name they go with.
    captions: BTreeMap<String, PathBuf>,
    others: Vec<String>,
}

/// The clips in `folder`: videos, folders of numbered pictures and, for one frame per item, pictures, in the order of the
/// numbers in their names, each with its caption in a `.txt` of the same name, or with the configured `caption`.
pub(super) fn items(folder: &Path, config: &Config) -> Result<Vec<Item>, DataError> {
    let mut listing = list(folder)?;
    if config.sample_n_frames == 1 {
        listing.clips.append(&mut listing.pictures);
    }
    if listing.clips.is_empty() {
        let hint = match listing.pictures.len() {
            0 => String::new(),
            n => format!(
                " (its {n} pictures serve only with `sample_n_frames: 1`, or in a folder of their own as one clip)"
            ),
        };
        return Err(fault(
            folder,
            format!("holds no clips{hint}; put videos or folders of frames there, or correct `videos`"),
        ));
    }
    let ignored: Vec<String> = listing.others.into_iter().chain(listing.pictures).collect();
    if let Some(first) = ignored.first() {
        tracing::warn!(
            "{}: {} entries are not clips and are left out, such as {first}",
            folder.display(),
            ignored.len()
        );
    }
    listing.clips.sort_by(|a, b| natural(a, b));
    listing.clips.iter().map(|file| captioned(folder, file, &listing.captions, config)).collect()
}

fn list(folder: &Path) -> Result<Listing, DataError> {
    let unlisted = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => fault(folder, "no such folder; correct `videos`"),
        _ => fault(folder, format!("cannot be listed ({error}); `videos` has to name a folder of clips")),
    };
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder).map_err(unlisted)? {
        let path = entry.map_err(unlisted)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if is_caption(&path) {
            listing.captions.insert(name.trim_end_matches(".txt").to_string(), path);
        } else if has_video_extension(&path) || path.is_dir() && holds_pictures(&path) {
            listing.clips.push(name);
        } else if has_picture_extension(&path) {
            listing.pictures.push(name);
        } else {
            listing.others.push(name);
        }
    }
    Ok(listing)
}

fn holds_pictures(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| has_picture_extension(&entry.path())))
}

fn captioned(
    folder: &Path,
    file: &str,
    captions: &BTreeMap<String, PathBuf>,
    config: &Config,
) -> Result<Item, DataError> {
    let path = folder.join(file);
    let name = if path.is_dir() { file } else { file.rsplit_once('.').map_or(file, |(stem, _)| stem) };
    let caption = match (captions.get(name), &config.caption) {
        (Some(text), _) => {
            fs::read_to_string(text).map_err(|error| fault(text, format!("cannot be read ({error})")))?
        }
        (None, Some(caption)) => caption.clone(),
        (None, None) => {
            return Err(fault(
                &path,
                format!("has no caption; write one to {name}.txt beside it, or set `caption` for all clips without"),
            ));
        }
    };
    Ok(Item { file: file.into(), caption: caption.trim().into() })
}

/// Whether `path` is named as a caption is, that lies beside what it is of.
pub fn is_caption(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt")
}
