//! What was found, on paper: the good clips as a table to train on, and all files with their hashes to compare with later.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::faults::DataError;
use super::super::{Config, Dataset};
use super::{Finding, Findings, content};
use crate::files;

/// The table of good clips: `video,caption,blake3`.
pub const GOOD: &str = "good.csv";
/// The list of all files.
pub const LIST: &str = "check.json";
const VERSION: u32 = 1;

/// Clips that can be trained on, and that one may still not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unwanted {
    /// A content or a name that an earlier clip has already
    Duplicates,
    /// Clips without a caption
    Captions,
    /// Clips with more than one scene
    Cuts,
    /// Nothing but what cannot be trained on
    None,
}

/// All files of a set, as they were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    version: u32,
    /// The set.
    pub source: Config,
    /// Its files.
    pub files: Vec<Entry>,
}

/// A file as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The clip's name.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its caption.
    pub caption: String,
    /// Its size; none if it could not be opened.
    pub bytes: Option<u64>,
    /// Its hash.
    pub blake3: Option<String>,
    /// Whether it is in the table of good clips.
    pub good: bool,
}

/// What is no longer as a list says. A file that several rows name is one file with several captions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Files of the list.
    pub compared: usize,
    /// Files with other contents.
    pub changed: Vec<PathBuf>,
    /// Files that are gone, cannot be opened any more, or are named by fewer rows of the set, or by none.
    pub missing: Vec<PathBuf>,
    /// Files that the list does not know, or that are named by more rows.
    pub new: Vec<PathBuf>,
    /// Files with another caption.
    pub captions: Vec<PathBuf>,
}

/// A file of a set, and the rows that name it.
struct File<'a> {
    path: PathBuf,
    /// In the list.
    then: Vec<&'a Entry>,
    /// In the set as it is.
    now: Vec<usize>,
}

impl Differences {
    /// Whether all is as it was.
    pub fn is_empty(&self) -> bool {
        let Differences { compared: _, changed, missing, new, captions } = self;
        [changed, missing, new, captions].iter().all(|paths| paths.is_empty())
    }
}

impl List {
    /// Of what was found of `dataset`; `unwanted` clips are not good.
    pub fn new(dataset: &Dataset, findings: &Findings, unwanted: &[Unwanted]) -> List {
        let leave_out = |what: Unwanted| unwanted.contains(&what);
        let (mut ids, mut contents) = (HashSet::new(), HashSet::new());
        let mut entry = |finding: &Finding| {
            let usable = finding.failure.is_none();
            let hash = finding.content.as_ref().map(|content| content.blake3.clone());
            // What cannot be used is not what a later clip would be a duplicate of.
            let first =
                !usable || (ids.insert(finding.id.clone()) & hash.clone().is_none_or(|hash| contents.insert(hash)));
            Entry {
                id: finding.id.clone(),
                path: finding.path.clone(),
                caption: finding.caption.clone(),
                bytes: finding.content.as_ref().map(|content| content.bytes),
                blake3: hash,
                good: usable
                    && (first || !leave_out(Unwanted::Duplicates))
                    && (!finding.caption.is_empty() || !leave_out(Unwanted::Captions))
                    && (finding.cuts.is_empty() || !leave_out(Unwanted::Cuts)),
            }
        };
        let files = findings.clips.iter().map(&mut entry).collect();
        List { version: VERSION, source: dataset.config().clone(), files }
    }

    /// Number of good clips.
    pub fn good(&self) -> usize {
        self.files.iter().filter(|file| file.good).count()
    }

    /// Writes [`LIST`] into `folder`, and [`GOOD`], unless the clips are in archives: a table could not name them.
    pub fn write(&self, folder: &Path) -> Result<()> {
        files::check_writable(folder)?;
        if self.has_paths() {
            files::write_atomic(&folder.join(GOOD), |out| self.table(out))?;
        }
        let text = serde_json::to_vec_pretty(self)?;
        files::write_atomic(&folder.join(LIST), |out| Ok(out.write_all(&text)?))
    }

    /// Whether the clips are files of their own.
    pub fn has_paths(&self) -> bool {
        self.source.shards.is_empty()
    }

    fn table(&self, out: &mut impl Write) -> Result<()> {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(["video", "caption", "blake3"])?;
        for file in self.files.iter().filter(|file| file.good) {
            let Some(path) = file.path.to_str() else {
                bail!("{}: not UTF-8 text, which a table is; rename it", file.path.display());
            };
            table.write_record([path, &file.caption, file.blake3.as_deref().unwrap_or("")])?;
        }
        Ok(table.flush()?)
    }

    /// Reads what [`List::write`] wrote.
    pub fn read(path: &Path) -> Result<List, DataError> {
        let bad = |reason: String| DataError::Index { path: path.to_path_buf(), reason };
        let text = fs::read(path).map_err(|error| bad(format!("cannot be read ({error}); check the path")))?;
        let list: List = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("not a list that `animatediff data check -o` wrote ({error})")))?;
        if list.version != VERSION {
            return Err(bad(format!("of version {}, and this program reads {VERSION}; make it anew", list.version)));
        }
        Ok(list)
    }

    /// Compares what is there now with the list. `told` hears how many of the list's rows are done; `stop` is asked before each
    /// file, and ends it without an answer.
    pub fn verify(
        &self,
        threads: usize,
        told: impl Fn(usize) + Sync,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Differences>, DataError> {
        let set = Dataset::open(&self.source)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| DataError::Threads(error.to_string()))?;
        let (files, done) = (self.files_now(&set), AtomicUsize::new(0));
        let compare = |file: &File| {
            let found = (!stop()).then(|| file.contents(&set));
            told(done.fetch_add(file.then.len(), Ordering::Relaxed) + file.then.len());
            found
        };
        let compared: Option<Vec<Contents>> = pool.install(|| files.par_iter().map(compare).collect());
        let Some(compared) = compared else { return Ok(None) };
        let mut differences = Differences::default();
        for (file, contents) in files.iter().zip(compared) {
            differences.add(file, contents, &set);
        }
        Ok(Some(differences))
    }

    /// The files of the list in their order, then those that only `set` has.
    fn files_now(&self, set: &Dataset) -> Vec<File<'_>> {
        let (mut files, mut places) = (Vec::<File>::new(), HashMap::new());
        let mut place = |files: &mut Vec<File>, path: PathBuf| {
            *places.entry(path).or_insert_with_key(|path| {
                files.push(File { path: path.clone(), then: Vec::new(), now: Vec::new() });
                files.len() - 1
            })
        };
        for entry in &self.files {
            let place = place(&mut files, entry.path.clone());
            files[place].then.push(entry);
        }
        for item in 0..set.len() {
            let place = place(&mut files, set.path(item));
            files[place].now.push(item);
        }
        files
    }
}

/// What a file holds, beside what it held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Same,
    Changed,
    Gone,
    /// There is nothing to compare with.
    New,
}

impl File<'_> {
    fn contents(&self, set: &Dataset) -> Contents {
        let Some(then) = self.then.first() else { return Contents::New };
        match self.now.first().map(|item| content(set, *item)) {
            Some(Some(found)) if Some(&found.blake3) == then.blake3.as_ref() => Contents::Same,
            Some(Some(_)) => Contents::Changed,
            // What could not be opened then, and cannot now, is no difference.
            Some(None) if then.blake3.is_none() => Contents::Same,
            _ => Contents::Gone,
        }
    }
}

impl Differences {
    fn add(&mut self, file: &File, contents: Contents, set: &Dataset) {
        let mut then: Vec<&str> = file.then.iter().map(|entry| entry.caption.as_str()).collect();
        let mut now: Vec<&str> = file.now.iter().map(|item| set.caption(*item)).collect();
        then.sort_unstable();
        now.sort_unstable();
        self.compared += usize::from(contents != Contents::New);
        let (fewer, more) = (now.len() < then.len(), now.len() > then.len());
        for (differs, paths) in [
            (contents == Contents::Changed, &mut self.changed),
            (contents == Contents::Gone || fewer, &mut self.missing),
            (contents == Contents::New || more, &mut self.new),
            (!(fewer || more) && then != now, &mut self.captions),
        ] {
            if differs {
                paths.push(file.path.clone());
            }
        }
    }
}
