//! What went wrong with single files, and when that is too much for a run.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Dataset;
use crate::{panics, video::VideoError};

/// Files tried before a share of them means anything; the whole of a smaller set does, too.
const ENOUGH_FOR_A_SHARE: usize = 20;
/// So many failures and not one success at the start: the folder is wrong, not the files.
const HOPELESS: usize = 10;
/// Of many texts, so many are told.
const NAMED: usize = 3;

/// Why there can be no training data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The configuration contradicts itself.
    #[error("train_data: {0}")]
    Config(String),
    /// A CSV, a folder or a caption is not what it has to be. The message names file, line and next step.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A cache that does not serve: incomplete, damaged, or made for something else.
    #[error("{}: {reason}", path.display())]
    Cache {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Too many files cannot be read.
    #[error("{reason}\n{faults}")]
    Unreadable {
        /// Which limit was passed.
        reason: String,
        /// The files and causes.
        faults: Faults,
    },
    /// The loader's threads could not be started.
    #[error("cannot start the loader's threads: {0}")]
    Threads(String),
}

/// Why one item could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A video that does not open or decode, or a file that is not there.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// A picture that does not decode.
    #[error("{}: not a picture that can be read ({reason}); remove it, or save it again as PNG", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// The decoder's words.
        reason: String,
    },
    /// A folder of frames that cannot serve as a clip.
    #[error("{}: {reason}", path.display())]
    Frames {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A clip with fewer frames than one item takes.
    #[error(
        "{}: {available} frames, and one item takes {needed}; lower `sample_stride` or `sample_n_frames`, or set `short_clips: denser`",
        path.display()
    )]
    TooShort {
        /// The clip.
        path: PathBuf,
        /// Frames it has.
        available: usize,
        /// Frames it would have to have.
        needed: usize,
    },
    /// The clip cannot be named, because its part of the list is damaged.
    #[error("{}: {reason}", path.display())]
    List {
        /// The list's file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A clip that could not be read when the cache was made.
    #[error("{reason}")]
    NotCached {
        /// The clip.
        path: PathBuf,
        /// What was wrong with it then.
        reason: String,
    },
    /// A part of the cache is not what its manifest says.
    #[error("{}: {reason}", path.display())]
    Cache {
        /// The shard.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A decoder panicked: a mistake in it, brought out by this file.
    #[error("{}: its decoder gave up ({reason}); remove the file, and report it", path.display())]
    Panic {
        /// The clip.
        path: PathBuf,
        /// The panic's message.
        reason: String,
    },
}

/// What is wrong with the list of clips at `path`, and what to do.
pub(super) fn fault(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Index { path: path.to_path_buf(), reason: reason.into() }
}

impl Failure {
    /// A panic that was caught while `path` was read.
    pub(crate) fn of_panic(path: PathBuf, panic: &(dyn Any + Send)) -> Failure {
        Failure::Panic { path, reason: panics::text(panic).unwrap_or_default().to_owned() }
    }

    /// Of a damaged list or cache, which is no single clip's fault: skipping on would train on another set.
    pub(crate) fn of_the_set(&self) -> Option<DataError> {
        match self {
            Failure::List { path, reason } => Some(fault(path, reason)),
            Failure::Cache { path, reason } => Some(DataError::Cache { path: path.clone(), reason: reason.clone() }),
            _ => None,
        }
    }

    /// The cause in two or three words, by which failures are counted.
    pub fn cause(&self) -> &'static str {
        match self {
            Failure::Video(VideoError::NotFound { .. }) => "not found",
            Failure::Video(VideoError::Unreadable { .. }) => "cannot be opened",
            Failure::Video(VideoError::NotAVideo { .. }) => "not a video",
            Failure::Video(VideoError::NoFrames { .. }) => "no frames",
            Failure::Video(VideoError::Truncated { .. }) => "cut off or damaged",
            Failure::Video(VideoError::NotBuilt { .. }) => "needs FFmpeg",
            Failure::Video(VideoError::NotUtf8 { .. }) => "path is not UTF-8",
            Failure::Video(_) => "does not decode",
            Failure::Picture { .. } => "not a picture",
            Failure::Frames { .. } => "unusable frame folder",
            Failure::TooShort { .. } => "too short",
            Failure::List { .. } => "damaged list",
            Failure::NotCached { .. } => "not in the cache",
            Failure::Cache { .. } => "damaged cache",
            Failure::Panic { .. } => "decoder gave up",
        }
    }
}

/// A clip that cannot be trained on.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// Its name.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub message: String,
}

/// Clips by what is wrong with them: [`Failure::cause`].
pub type ByCause = BTreeMap<&'static str, Vec<Fault>>;

/// The first few of many texts, and how many more there are.
pub fn first_few(texts: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = texts.len().saturating_sub(NAMED);
    let mut lines: Vec<String> = texts.take(NAMED).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Every file that could not be read, once, by cause, and how many files were tried.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    items: usize,
    tried: Vec<u64>,
    tried_count: usize,
    failed_count: usize,
    by_cause: ByCause,
}

impl Faults {
    /// Counts for a set of `items` files.
    pub(crate) fn new(items: usize) -> Faults {
        Faults { items, tried: vec![0; items.div_ceil(64)], ..Faults::default() }
    }

    /// Distinct files that were tried.
    pub fn tried(&self) -> usize {
        self.tried_count
    }

    /// Distinct files that could not be read.
    pub fn unreadable(&self) -> usize {
        self.failed_count
    }

    /// The unreadable files with their messages, by cause.
    pub fn by_cause(&self) -> &ByCause {
        &self.by_cause
    }

    /// Counts one attempt at clip `item` of `dataset`, and says so if it cannot be read; a clip counts the first time only.
    ///
    /// # Errors
    /// Once more clips cannot be read than `max_unreadable` allows, or when it is not the clip that is at fault.
    pub(crate) fn attempt(
        &mut self,
        dataset: &Dataset,
        item: usize,
        failure: Option<&Failure>,
    ) -> Result<(), DataError> {
        if let Some(fatal) = failure.and_then(Failure::of_the_set) {
            return Err(fatal);
        }
        let (word, bit) = (item / 64, 1 << (item % 64));
        if self.tried[word] & bit == 0 {
            self.tried[word] |= bit;
            self.tried_count += 1;
            if let Some(failure) = failure {
                tracing::warn!("left out: {failure}");
                self.failed_count += 1;
                let fault = Fault { id: dataset.id(item), path: dataset.path(item), message: failure.to_string() };
                self.by_cause.entry(failure.cause()).or_default().push(fault);
            }
        }
        self.check(dataset.config().max_unreadable)
    }

    /// An error once the failures are more than a run should carry on with.
    fn check(&self, max_unreadable: f64) -> Result<(), DataError> {
        let (tried, failed) = (self.tried_count, self.failed_count);
        let share = failed as f64 / tried.max(1) as f64;
        let reason = if failed > 0 && failed == self.items {
            format!("none of the {failed} clips can be read")
        } else if failed == tried && failed >= HOPELESS {
            format!("the first {failed} clips that were tried cannot be read; is the folder the right one?")
        } else if (tried >= ENOUGH_FOR_A_SHARE || tried == self.items) && share > max_unreadable {
            format!(
                "{failed} of {tried} clips cannot be read: {:.1} %, and `max_unreadable` allows {:.1} %",
                100.0 * share,
                100.0 * max_unreadable
            )
        } else {
            return Ok(());
        };
        Err(DataError::Unreadable { reason, faults: self.clone() })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} clips tried could not be read", self.failed_count, self.tried_count)?;
        for (cause, faults) in &self.by_cause {
            write!(f, "\n  {cause}: {}", faults.len())?;
            for line in first_few(faults.iter().map(|fault| fault.message.clone())) {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}
