//! All clips that a configuration names, wherever the list of them is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::faults::{DataError, Failure, fault};
use super::index::{self, Index};
use super::patterns;
use super::rows::{Fingerprint, Row};
use super::shards::Shards;
use super::table::Table;
use super::{Config, folder, order};

/// All clips that a configuration names. Opening it reads the CSV, maps its index or lists the folder; the clips stay closed.
#[derive(Clone, Debug)]
pub struct Dataset {
    config: Config,
    root: PathBuf,
    rows: Rows,
    fingerprint: String,
    /// Whether a file may also be a folder of frames of that name without its extension.
    or_folder: bool,
}

/// Where the list of clips is.
#[derive(Clone, Debug)]
enum Rows {
    /// In memory.
    Listed(Vec<Item>),
    /// In a file that is mapped.
    Indexed(Arc<Index>),
    /// Of archives, in a file that is mapped.
    Archived(Arc<Shards>),
}

/// A clip that is about to be read.
pub(super) enum Place {
    /// A file, or a folder of frames.
    Path(PathBuf),
    /// A member of an archive: what it is called in messages, and its bytes.
    Bytes(PathBuf, Vec<u8>),
}

impl Place {
    /// What it is called in messages.
    pub fn name(&self) -> &Path {
        let (Place::Path(name) | Place::Bytes(name, _)) = self;
        name
    }
}

/// One clip of a list in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Path below the root.
    pub file: Box<str>,
    pub caption: Box<str>,
}

impl Dataset {
    /// Reads the CSV, opens its index or lists the folder that `config` names.
    ///
    /// A CSV has WebVid's columns `videoid,name` (`<video_folder>/<videoid>.mp4`), or `video,caption` (a path below
    /// `video_folder`, or below the CSV's own folder), or `name,contentUrl` (the last part of the address, below
    /// `video_folder`); others are ignored. An index gives the same clips in the same order as the CSV that it was made of.
    /// A folder holds videos, folders of numbered pictures and, for one frame per item, pictures, each with its caption in
    /// a `.txt` of the same name, or with the configured `caption`. Tar archives hold videos (and pictures, for one frame per item)
    /// with their captions in a `.txt` or `.json` of the same name.
    pub fn open(config: &Config) -> Result<Dataset, DataError> {
        config.check()?;
        match (&config.csv_path, &config.videos) {
            _ if !config.shards.is_empty() => Dataset::from_shards(config),
            (Some(path), _) if index::is_index(path) => Dataset::from_index(config, path),
            (Some(path), _) => Dataset::from_csv(config, path),
            (None, Some(path)) => Dataset::from_folder(config, path),
            (None, None) => unreachable!("`Config::check` asks for one of them"),
        }
    }

    fn from_csv(config: &Config, path: &Path) -> Result<Dataset, DataError> {
        let mut table = Table::open(path)?;
        let beside = table.names_paths().then(|| path.parent().unwrap_or(Path::new("")).to_path_buf());
        let root = root(path, config.video_folder.as_deref(), beside)?;
        let or_folder = table.names_folders();
        let mut items = Vec::new();
        while let Some((file, caption)) = table.next()? {
            items.push(Item { file: file.into(), caption: caption.into() });
        }
        if items.is_empty() {
            return Err(table.empty());
        }
        let empty = items.iter().filter(|item| item.caption.is_empty()).count();
        warn_of_empty(path, empty, items.len());
        Ok(Dataset::listed(config, root, items, or_folder))
    }

    fn from_index(config: &Config, path: &Path) -> Result<Dataset, DataError> {
        let index = Index::open(path)?;
        if index.archives().is_some() {
            return Err(fault(path, "an index of archives; name the archives themselves in `shards`"));
        }
        let root = root(path, config.video_folder.as_deref(), index.source_folder())?;
        warn_of_empty(path, index.empty_captions(), index.len());
        let (fingerprint, or_folder) = (index.fingerprint(), index.names_folders());
        Ok(Dataset { config: config.clone(), root, rows: Rows::Indexed(index.into()), fingerprint, or_folder })
    }

    fn from_folder(config: &Config, path: &Path) -> Result<Dataset, DataError> {
        let items = folder::items(path, config)?;
        Ok(Dataset::listed(config, path.to_path_buf(), items, false))
    }

    fn from_shards(config: &Config) -> Result<Dataset, DataError> {
        let paths = patterns::files(&config.shards)?;
        let shards = Shards::open(&paths, config.shuffle_buffer, config.sample_n_frames == 1)?;
        warn_of_empty(&paths[0], shards.empty_captions(), shards.len());
        let (fingerprint, root) = (shards.fingerprint(), PathBuf::new());
        let rows = Rows::Archived(shards.into());
        Ok(Dataset { config: config.clone(), root, rows, fingerprint, or_folder: false })
    }

    fn listed(config: &Config, root: PathBuf, items: Vec<Item>, or_folder: bool) -> Dataset {
        let mut fingerprint = Fingerprint::default();
        items.iter().for_each(|item| fingerprint.add(item.row()));
        let fingerprint = fingerprint.finish(or_folder).to_hex().to_string();
        Dataset { config: config.clone(), root, rows: Rows::Listed(items), fingerprint, or_folder }
    }

    /// Number of clips, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a dataset without clips does not open")]
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Listed(items) => items.len(),
            Rows::Indexed(index) => index.len(),
            Rows::Archived(shards) => shards.len(),
        }
    }

    /// What the dataset was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A hash of all names and captions in their order, and of what else decides which clip comes when: the same for a CSV and for
    /// its index.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Number of the clip that stands at `position` of the stream of `seed`.
    pub fn item_at(&self, seed: u64, position: u64) -> usize {
        match &self.rows {
            Rows::Archived(shards) => shards.item_at(seed, position),
            _ => order::item(seed, position, self.len()),
        }
    }

    /// File and caption of clip number `item`, which must be below [`Dataset::len`].
    ///
    /// # Errors
    /// [`Failure::List`] when this part of an index is damaged.
    pub fn row(&self, item: usize) -> Result<Row<'_>, Failure> {
        match &self.rows {
            Rows::Listed(items) => Ok(items[item].row()),
            Rows::Indexed(index) => index.row(item),
            Rows::Archived(shards) => shards.row(item),
        }
    }

    /// The clip's name: its path below the root without extension. Where [`Dataset::row`] fails, `row <item>`.
    pub fn id(&self, item: usize) -> String {
        self.row(item).map_or_else(|_| format!("row {item}"), |row| row.id())
    }

    /// The clip's caption; empty where [`Dataset::row`] fails.
    pub fn caption(&self, item: usize) -> &str {
        self.row(item).map_or("", |row| row.caption)
    }

    /// Where the clip lies. It need not be there: that is found out when it is decoded. Of an archive, words that say which, the byte and
    /// the member's name. The root where [`Dataset::row`] fails.
    pub fn path(&self, item: usize) -> PathBuf {
        self.row(item).map_or_else(|_| self.root.clone(), |row| self.path_of(&row))
    }

    /// The clip of a row, read if it is in an archive.
    pub(super) fn place(&self, row: &Row) -> Result<Place, Failure> {
        match &self.rows {
            Rows::Archived(shards) => Ok(Place::Bytes(shards.name(row), shards.read(row)?)),
            _ => Ok(Place::Path(self.path_of(row))),
        }
    }

    fn path_of(&self, row: &Row) -> PathBuf {
        if let Rows::Archived(shards) = &self.rows {
            return shards.name(row);
        }
        let path = self.root.join(row.file);
        if self.or_folder && !path.exists() && path.with_extension("").is_dir() {
            return path.with_extension("");
        }
        path
    }
}

impl Item {
    fn row(&self) -> Row<'_> {
        Row { file: &self.file, caption: &self.caption, member: None }
    }
}

/// The folder below which the files of the list at `path` are: `video_folder`, else `beside`.
fn root(path: &Path, video_folder: Option<&Path>, beside: Option<PathBuf>) -> Result<PathBuf, DataError> {
    match (video_folder, beside) {
        (Some(folder), _) if folder.is_dir() => Ok(folder.to_path_buf()),
        (Some(folder), _) => Err(fault(folder, "no such folder; correct `video_folder`")),
        (None, Some(folder)) => Ok(folder),
        (None, None) => Err(fault(path, "its columns name files without a folder; set `video_folder`")),
    }
}

fn warn_of_empty(path: &Path, empty: usize, rows: usize) {
    if empty > 0 {
        tracing::warn!("{}: {empty} of {rows} captions are empty", path.display());
    }
}
