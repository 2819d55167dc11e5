//! Which checkpoint `--resume` means. Builds nothing: of many processes that train together, one decides for all.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow};

use serde::{Deserialize, Serialize};

use super::{
    Refused, checkpoint,
    folder::{self, CHECKPOINTS, CONFIG, RunFolder},
};
use crate::files::failed;

/// What `--resume` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A new run, whatever is there.
    Never,
    /// The newest run of this name that left a complete checkpoint; a new one where there is none.
    Auto,
    /// This run's folder, or this checkpoint in one.
    From(PathBuf),
}

impl FromStr for Resume {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Resume, Infallible> {
        Ok(match text {
            "never" => Resume::Never,
            "auto" => Resume::Auto,
            path => Resume::From(path.into()),
        })
    }
}

/// Where a run goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The run's folder.
    pub folder: PathBuf,
    /// The checkpoint in it.
    pub checkpoint: PathBuf,
    /// Whether this very checkpoint was asked for, rather than the newest.
    pub named: bool,
    /// Newer checkpoints that are damaged: what is wrong with each, newest first.
    pub damaged: Vec<String>,
}

impl Resume {
    /// The configuration that a run goes on with where no other is given: that of the folder that is named.
    ///
    /// # Errors
    /// [`Refused`] for a path that is neither a run's folder nor a checkpoint in one.
    pub fn config(&self) -> Result<Option<PathBuf>> {
        match self {
            Resume::Never | Resume::Auto => Ok(None),
            Resume::From(path) => Ok(Some(named(path)?.0.join(CONFIG))),
        }
    }

    /// Where the run called `name` goes on in `output_dir`; `debug` is for the run that has no name of its own. `None` is a
    /// new run.
    ///
    /// # Errors
    /// [`Refused`] for a path that names no checkpoint, for a run that another process is writing, and for a run whose checkpoints are all damaged: a start from the
    /// beginning must be asked for.
    pub fn find(&self, output_dir: &Path, name: &str, debug: bool) -> Result<Option<Point>> {
        match self {
            Resume::Never => Ok(None),
            Resume::Auto => newest_run(output_dir, name, debug).map_err(|error| Refused(error).into()),
            Resume::From(path) => match named(path)? {
                (folder, Some(checkpoint)) => Ok(Some(Point { folder, checkpoint, named: true, damaged: Vec::new() })),
                (folder, None) => {
                    // A run that another process has just begun has no checkpoint yet: that process is what to tell of.
                    drop(folder::lock(&folder).map_err(Refused)?);
                    Point::newest(&folder).map_err(Refused)?.map(Some).ok_or_else(|| none(&folder))
                }
            },
        }
    }
}

impl Point {
    /// The newest complete checkpoint of the run in `folder`; `None` where it has not left one.
    ///
    /// # Errors
    /// When there are checkpoints and all of them are damaged.
    pub fn newest(folder: &Path) -> Result<Option<Point>> {
        let found = checkpoint::newest(&folder.join(CHECKPOINTS))?;
        let point = |found: checkpoint::Newest| Point {
            folder: folder.to_owned(),
            checkpoint: found.path,
            named: false,
            damaged: found.damaged,
        };
        Ok(found.map(point))
    }

    /// The same, looked for once more: whoever wrote the run may have saved another checkpoint, and removed this one, until its lock
    /// was to be had.
    ///
    /// # Errors
    /// When none is left that is not damaged.
    pub fn again(&self) -> Result<Point> {
        if self.named { Ok(self.clone()) } else { Point::newest(&self.folder)?.ok_or_else(|| none(&self.folder)) }
    }
}

fn none(folder: &Path) -> anyhow::Error {
    Refused(anyhow!("{}: no complete checkpoint to resume from", folder.join(CHECKPOINTS).display())).into()
}

/// The run's folder that `path` means, and the checkpoint if it is one.
fn named(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    if path.join(CONFIG).is_file() {
        return Ok((path.to_owned(), None));
    }
    let folder = path.parent().and_then(Path::parent).filter(|folder| folder.join(CONFIG).is_file());
    match folder {
        Some(folder) if path.is_dir() => Ok((folder.to_owned(), Some(path.to_owned()))),
        _ => Err(Refused(anyhow!(
            "--resume {}: neither a run's folder (with {CONFIG}) nor a checkpoint inside one; `auto` looks for the newest run, \
             `never` starts a new one",
            path.display()
        ))
        .into()),
    }
}

fn newest_run(output_dir: &Path, name: &str, debug: bool) -> Result<Option<Point>> {
    let folders = if debug { vec![RunFolder::debug_path(output_dir)] } else { runs(output_dir, name)? };
    for folder in folders.iter().filter(|folder| folder.join(CONFIG).is_file()) {
        if let Some(point) = Point::newest(folder)? {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

/// Folders of the runs called `name`, newest first.
fn runs(output_dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(output_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| failed(output_dir, "list the folder", e))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{}: cannot be listed", output_dir.display()))?.path();
        let started = path.file_name().and_then(|folder| folder::started(&folder.to_string_lossy(), name));
        found.extend(started.map(|started| (started, path)));
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}
