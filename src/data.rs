//! Training clips: from a CSV or a folder to pixels, in an order that only the seed and the position decide.
//!
//! [`Dataset`] lists the clips of a CSV, of an [`index`] of one, of a [`folder`] or of tar archives; [`order`] says which one stands at a
//! position of the endless stream, [`choice`] picks its frames, [`decode`] reads them and [`pixels`] brings them to size;
//! [`loader`] does this ahead of time on several threads.
//! [`cache`] reads what the networks made of clips before, and [`check`] looks for what is wrong with a set.
//! [`shapes`] and [`augment`] make clips, which [`mod@write`] keeps. Nothing here knows tensors, text encoders or the training loop.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod archive;
pub mod augment;
pub mod cache;
pub mod check;
pub mod choice;
mod dataset;
pub mod decode;
pub mod faults;
pub mod folder;
pub mod index;
pub mod loader;
pub mod order;
mod patterns;
pub mod picture;
pub mod pixels;
mod rows;
pub mod shapes;
mod shards;
mod table;
pub mod write;

pub use cache::Cache;
pub use dataset::Dataset;
pub use decode::Sample;
pub use faults::{DataError, Faults};
pub use loader::Loader;
pub use rows::Row;

/// What to train on: the `train_data` part of a run's configuration. Keys of the official YAML keep their names.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// A CSV that lists clips and captions (WebVid's own columns, or `video,caption`, or `name,contentUrl`), or the index that
    /// `animatediff data index` made of one.
    pub csv_path: Option<PathBuf>,
    /// The folder in which the CSV's files lie.
    pub video_folder: Option<PathBuf>,
    /// A folder of clips with captions in `.txt` files of the same name; instead of a CSV.
    pub videos: Option<PathBuf>,
    /// Tar archives of clips with captions, as WebDataset writes them; instead of a CSV. A name or a list of names, in which `{000..099}` and
    /// `*` stand for many.
    #[serde(deserialize_with = "one_or_many")]
    pub shards: Vec<String>,
    /// Neighbouring clips of the archives that are shuffled among one another; the archives are shuffled, too.
    pub shuffle_buffer: usize,
    /// The caption of clips in `videos` that have no `.txt`.
    pub caption: Option<String>,
    /// Size of the pixels that come out.
    pub sample_size: Size,
    /// Every so many frames of a video one is taken.
    pub sample_stride: usize,
    /// Frames per item; 1 trains on pictures.
    pub sample_n_frames: usize,
    /// Mirrors half of the clips. Off, because it swaps left and right in motion and in captions; the official trainer has it on.
    pub horizontal_flip: bool,
    /// What happens to videos that are too short for the frames and the stride.
    pub short_clips: ShortClips,
    /// Share of the files tried that may be unreadable before the run fails, 0 to 1.
    pub max_unreadable: f64,
    /// Clips that are decoded ahead.
    pub prefetch: usize,
    /// A folder that `animatediff data cache` made of this set for this configuration: clips are taken from there.
    pub cache: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            csv_path: None,
            video_folder: None,
            videos: None,
            shards: Vec::new(),
            shuffle_buffer: 2048,
            caption: None,
            sample_size: Size::square(256),
            sample_stride: 4,
            sample_n_frames: 16,
            horizontal_flip: false,
            short_clips: ShortClips::Refuse,
            max_unreadable: 0.05,
            prefetch: 16,
            cache: None,
        }
    }
}

impl Config {
    /// Checks what the types cannot say. The message names the key and what it takes.
    pub fn check(&self) -> Result<(), DataError> {
        let bad = |message: &str| Err(DataError::Config(message.to_string()));
        if self.sample_n_frames == 0 {
            return bad("`sample_n_frames` is 0; give at least 1");
        }
        if self.sample_stride == 0 {
            return bad("`sample_stride` is 0; give 1 to take every frame");
        }
        if self.prefetch == 0 {
            return bad("`prefetch` is 0; give at least 1 clip");
        }
        if !(0.0..=1.0).contains(&self.max_unreadable) {
            return bad(&format!(
                "`max_unreadable` is {}; give a share from 0 to 1, such as 0.05",
                self.max_unreadable
            ));
        }
        if self.sample_size.height == 0 || self.sample_size.width == 0 {
            return bad("`sample_size` is 0; give a size in pixels, such as 256 or [height, width]");
        }
        if self.shuffle_buffer == 0 {
            return bad("`shuffle_buffer` is 0; give 1 to keep the order of the archives");
        }
        let sources = [
            ("csv_path", self.csv_path.is_some()),
            ("videos", self.videos.is_some()),
            ("shards", !self.shards.is_empty()),
        ];
        let set: Vec<&str> = sources.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        match set[..] {
            [] => bad("no training clips are named; set `csv_path` with `video_folder`, or `videos`, or `shards`"),
            [first, second, ..] => bad(&format!("both `{first}` and `{second}` are set; keep the one that is meant")),
            ["csv_path"] if self.caption.is_some() => {
                bad("`caption` goes with `videos`; a CSV brings its own captions: remove it")
            }
            ["shards"] if self.caption.is_some() => {
                bad("`caption` goes with `videos`; archives bring their own captions: remove it")
            }
            [other @ ("videos" | "shards")] if self.video_folder.is_some() => {
                bad(&format!("`video_folder` goes with `csv_path`; remove it, or `{other}`"))
            }
            [other] if other != "shards" && self.shuffle_buffer != Config::default().shuffle_buffer => bad(&format!(
                "`shuffle_buffer` goes with `shards`; clips of `{other}` are shuffled all together: remove it"
            )),
            _ => Ok(()),
        }
    }

    /// The table, the folder or the first archives that the clips come from, by its name.
    pub fn source(&self) -> String {
        let shards = self.shards.first().map(Path::new);
        let path = self.csv_path.as_deref().or(self.videos.as_deref()).or(shards);
        let name = path.and_then(|path| path.file_name());
        name.map_or(String::new(), |name| name.to_string_lossy().into_owned())
    }
}

/// A name, or a list of names.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "the name of an archive such as `data/{000..099}.tar`, or a list of such names")]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Names>::deserialize(from)? {
        None => Vec::new(),
        Some(Names::One(name)) => vec![name],
        Some(Names::Many(names)) => names,
    })
}

/// What happens to videos that are too short for `sample_n_frames` and `sample_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShortClips {
    /// They count as unreadable.
    Refuse,
    /// Their frames are taken closer together, and repeated if need be, as the official trainer does.
    Denser,
}

/// A size in pixels; in YAML one number for a square, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Sides", into = "Sides")]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
}

impl Size {
    /// A square.
    pub const fn square(side: usize) -> Size {
        Size { height: side, width: side }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged, expecting = "a size in pixels: one whole number such as 256, or [height, width]")]
enum Sides {
    One(usize),
    Both([usize; 2]),
}

impl TryFrom<Sides> for Size {
    type Error = String;

    fn try_from(sides: Sides) -> Result<Size, String> {
        let (height, width) = match sides {
            Sides::One(side) => (side, side),
            Sides::Both([height, width]) => (height, width),
        };
        if height == 0 || width == 0 {
            return Err("a size of 0 pixels; give one whole number such as 256, or [height, width]".into());
        }
        Ok(Size { height, width })
    }
}

impl From<Size> for Sides {
    fn from(size: Size) -> Sides {
        if size.height == size.width { Sides::One(size.height) } else { Sides::Both([size.height, size.width]) }
    }
}
