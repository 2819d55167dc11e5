//! The list of clips and captions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::faults::DataError;
use super::picture::{has_picture_extension, natural};
use super::{Config, order};
use crate::video::has_video_extension;

/// All clips that a configuration names. Opening it reads the CSV or lists the folder; the clips stay closed.
#[derive(Clone, Debug)]
pub struct Dataset {
    config: Config,
    root: PathBuf,
    items: Vec<Item>,
}

/// One clip. Kept small: there may be ten million.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// Path below the root.
    file: Box<str>,
    caption: Box<str>,
    /// Whether `file` may also be a folder of frames of that name without its extension.
    or_folder: bool,
}

impl Dataset {
    /// Reads the CSV or lists the folder that `config` names.
    ///
    /// A CSV has WebVid's columns `videoid,name` (`<video_folder>/<videoid>.mp4`), or `video,caption` (a path below
    /// `video_folder`, or below the CSV's own folder), or `name,contentUrl` (the last part of the address, below
    /// `video_folder`); others are ignored. A folder holds videos, folders of numbered pictures and, for one frame per
    /// item, pictures, each with its caption in a `.txt` of the same name, or with the configured `caption`.
    pub fn open(config: &Config) -> Result<Dataset, DataError> {
        config.check()?;
        let (root, items) = match (&config.csv_path, &config.videos) {
            (Some(csv), _) => from_csv(csv, config.video_folder.as_deref())?,
            (None, Some(folder)) => (folder.clone(), from_folder(folder, config)?),
            (None, None) => unreachable!("`Config::check` asks for one of them"),
        };
        Ok(Dataset { config: config.clone(), root, items })
    }

    /// Number of clips, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a dataset without clips does not open")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// What the dataset was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of the clip that stands at `position` of the stream of `seed`.
    pub fn item_at(&self, seed: u64, position: u64) -> usize {
        order::item(seed, position, self.len())
    }

    /// The clip's name: its path below the root without extension.
    pub fn id(&self, item: usize) -> String {
        Path::new(&*self.items[item].file).with_extension("").to_string_lossy().into_owned()
    }

    /// The clip's caption.
    pub fn caption(&self, item: usize) -> &str {
        &self.items[item].caption
    }

    /// Where the clip lies. It need not be there: that is found out when it is decoded.
    pub fn path(&self, item: usize) -> PathBuf {
        let item = &self.items[item];
        let path = self.root.join(&*item.file);
        if item.or_folder && !path.exists() && path.with_extension("").is_dir() {
            return path.with_extension("");
        }
        path
    }
}

fn fault(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Index { path: path.to_path_buf(), reason: reason.into() }
}

/// The CSV layouts that are known, by the columns that they need.
#[derive(Clone, Copy)]
enum Layout {
    Webvid { videoid: usize, name: usize },
    Paths { video: usize, caption: usize },
    Addresses { address: usize, name: usize },
}

impl Layout {
    fn of(headers: &csv::StringRecord) -> Option<Layout> {
        let column = |name: &str| headers.iter().position(|header| header.trim() == name);
        match (column("videoid"), column("name"), column("contentUrl"), column("video"), column("caption")) {
            (Some(videoid), Some(name), ..) => Some(Layout::Webvid { videoid, name }),
            (.., Some(video), Some(caption)) => Some(Layout::Paths { video, caption }),
            (_, Some(name), Some(address), ..) => Some(Layout::Addresses { address, name }),
            _ => None,
        }
    }

    /// File and caption of one row; the name of the column that is empty where there is none.
    fn item(self, row: &csv::StringRecord) -> Result<Item, &'static str> {
        let field = |column: usize| row.get(column).unwrap_or("").trim();
        let filled = |column, name| Some(field(column)).filter(|text| !text.is_empty()).ok_or(name);
        let (file, caption) = match self {
            Layout::Webvid { videoid, name } => (format!("{}.mp4", filled(videoid, "videoid")?), name),
            Layout::Paths { video, caption } => (filled(video, "video")?.to_string(), caption),
            Layout::Addresses { address, name } => {
                let path = filled(address, "contentUrl")?.split(['?', '#']).next().unwrap_or("");
                let file = path.rsplit('/').next().filter(|last| !last.is_empty()).ok_or("contentUrl")?;
                (file.to_string(), name)
            }
        };
        let or_folder = matches!(self, Layout::Webvid { .. });
        Ok(Item { file: file.into(), caption: field(caption).into(), or_folder })
    }
}

fn from_csv(path: &Path, video_folder: Option<&Path>) -> Result<(PathBuf, Vec<Item>), DataError> {
    let mut reader = csv::ReaderBuilder::new().from_path(path).map_err(|error| csv_fault(path, &error))?;
    let headers = reader.headers().map_err(|error| csv_fault(path, &error))?.clone();
    let layout = Layout::of(&headers).ok_or_else(|| {
        let found: Vec<&str> = headers.iter().collect();
        fault(
            path,
            format!(
                "columns `{}` found; needed are `videoid,name` (WebVid), or `video,caption`, or `name,contentUrl`: rename them in the first line",
                found.join(",")
            ),
        )
    })?;
    let root = csv_root(path, video_folder, layout)?;
    let mut items = Vec::new();
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|error| csv_fault(path, &error))? {
        let line = row.position().map_or(0, csv::Position::line);
        let item = layout.item(&row).map_err(|column| {
            fault(path, format!("line {line}: column `{column}` is empty; fill it or remove the line"))
        })?;
        items.push(item);
    }
    if items.is_empty() {
        return Err(fault(path, "has a first line and no clips after it; add a line for each clip"));
    }
    let empty = items.iter().filter(|item| item.caption.is_empty()).count();
    if empty > 0 {
        tracing::warn!("{}: {empty} of {} captions are empty", path.display(), items.len());
    }
    Ok((root, items))
}

fn csv_root(path: &Path, video_folder: Option<&Path>, layout: Layout) -> Result<PathBuf, DataError> {
    match (video_folder, layout) {
        (Some(folder), _) if folder.is_dir() => Ok(folder.to_path_buf()),
        (Some(folder), _) => Err(fault(folder, "no such folder; correct `video_folder`")),
        (None, Layout::Paths { .. }) => Ok(path.parent().unwrap_or(Path::new("")).to_path_buf()),
        (None, _) => Err(fault(path, "its columns name files without a folder; set `video_folder`")),
    }
}

fn csv_fault(path: &Path, error: &csv::Error) -> DataError {
    let line = error.position().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    match error.kind() {
        csv::ErrorKind::Io(io) => fault(path, format!("cannot be read ({io}); correct `csv_path`")),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => fault(
            path,
            format!(
                "{line}{len} fields, and the first line has {expected_len}; put captions with commas into double quotes"
            ),
        ),
        csv::ErrorKind::Utf8 { .. } => fault(path, format!("{line}not UTF-8 text; save the file as UTF-8")),
        _ => fault(path, format!("{line}{error}")),
    }
}

/// What a folder of clips holds, sorted by what it may be.
#[derive(Default)]
struct Listing {
    clips: Vec<String>,
    pictures: Vec<String>,
    /// Caption files by the name they go with.
    captions: BTreeMap<String, PathBuf>,
    others: Vec<String>,
}

fn from_folder(folder: &Path, config: &Config) -> Result<Vec<Item>, DataError> {
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
    Ok(Item { file: file.into(), caption: caption.trim().into(), or_folder: false })
}

/// Whether `path` is named as a caption is, that lies beside what it is of.
pub fn is_caption(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt")
}
