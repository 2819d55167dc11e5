//! Checkpoints: what resuming a run needs, on disk, complete or absent.
//!
//! One folder per step, `step-00000060/`: a safetensors file per group of tensors, `state.json`, and `manifest.json` with size and
//! BLAKE3 hash of each of them, written last. The folder is staged, synced, renamed and its parent synced; only then are older ones
//! rotated out. [`saver`] does this beside the training. Which tensors are in the groups, and what the state means, is the
//! training loop's business.

mod manifest;
pub mod saver;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tch::Tensor;

use crate::files;
use crate::files::disk::{self, Output};
use crate::weights::write::stream_safetensors;
use manifest::{FileDigest, HashingWriter, Manifest};

const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// Groups of named tensors: file stem (`trained`, `optimizer`, …) to name to tensor.
pub type Groups = BTreeMap<String, BTreeMap<String, Tensor>>;

/// What a checkpoint holds.
#[derive(Debug)]
pub struct Checkpoint {
    /// Optimizer steps taken when it was made.
    pub step: i64,
    /// Kept bit for bit, with their types.
    pub tensors: Groups,
    /// Everything that is not a tensor. Finite numbers come back exactly as they were; JSON has no others.
    pub state: serde_json::Value,
}

/// Which checkpoints stay when a new one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many, and at least the new one.
    pub last: usize,
    /// And those whose step is a multiple of this.
    pub every: Option<i64>,
    /// And the newest of a step before this one, in which the last update was made: that update's loss was finite, so the weights
    /// that it began with were sound. Those that it left are not known to be.
    pub sound_before: i64,
}

/// Saves `<dir>/step-NNNNNNNN`, replacing one of the same step, and removes the older ones that `keep` does not name; all
/// stay where it is absent.
///
/// Staging left in `dir` by killed runs is removed first, so the caller must be the only writer: it holds the run's lock.
///
/// What cannot be removed is warned of: the next save tries again.
///
/// # Errors
/// When something cannot be written; every earlier checkpoint is then still there.
pub fn save(dir: &Path, checkpoint: &Checkpoint, keep: Option<Keep>) -> Result<PathBuf> {
    disk::create_dir_all(dir).map_err(|e| files::failed(dir, "create the folder", e))?;
    if let Err(error) = files::remove_staging(dir) {
        tracing::warn!("{error:#}");
    }
    let target = dir.join(folder_name(checkpoint.step)?);
    files::write_dir(&target, |staging| stage(staging, checkpoint))
        .with_context(|| format!("the checkpoint of step {} was not saved", checkpoint.step))?;
    if let Some(keep) = keep {
        rotate(dir, checkpoint.step, keep);
    }
    Ok(target)
}

/// Loads the checkpoint folder `path` after checking every file in it against the manifest.
///
/// # Errors
/// Names the file that is missing or differs, or the tensor that cannot be read.
pub fn load(path: &Path) -> Result<Checkpoint> {
    let manifest = verify(path)?;
    let mut groups = BTreeMap::new();
    for name in manifest.files.keys() {
        if let Some(stem) = name.strip_suffix(".safetensors") {
            groups.insert(stem.to_owned(), tensors::read(&path.join(name))?);
        }
    }
    let state = path.join(STATE);
    let text = fs::read(&state).map_err(|e| files::failed(&state, "read", e))?;
    let state = serde_json::from_slice(&text).map_err(|e| files::failed(&state, "parse", e))?;
    Ok(Checkpoint { step: manifest.step, tensors: groups, state })
}

/// The newest complete checkpoint of a folder.
#[derive(Debug)]
pub struct Newest {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with each of the newer ones, newest first.
    pub damaged: Vec<String>,
}

/// The newest complete checkpoint in `dir`; `None` where there is none, or no such folder.
///
/// # Errors
/// When there are checkpoints and all of them are damaged: going on would silently start anew.
pub fn newest(dir: &Path) -> Result<Option<Newest>> {
    let mut damaged = Vec::new();
    for (_, path) in list(dir)?.into_iter().rev() {
        match verify(&path) {
            Ok(_) => return Ok(Some(Newest { path, damaged })),
            Err(error) => damaged.push(format!("{error:#}")),
        }
    }
    if let Some(newest) = damaged.first() {
        bail!(
            "{}: all {} checkpoints are damaged ({newest}); move the folder away to start from the beginning",
            dir.display(),
            damaged.len()
        );
    }
    Ok(None)
}

/// The newest complete checkpoint in `dir` of a step before `step`.
///
/// # Errors
/// When the folder cannot be listed.
pub fn newest_before(dir: &Path, step: i64) -> Result<Option<PathBuf>> {
    let earlier = list(dir)?.into_iter().rev().filter(|(own, _)| *own < step);
    Ok(earlier.map(|(_, path)| path).find(|path| verify(path).is_ok()))
}

/// The checkpoint folders in `dir` by ascending step, complete or not; empty where there is no such folder.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(dir: &Path) -> Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    if !dir.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(dir).map_err(|e| files::failed(dir, "list the folder", e))? {
        let entry = entry.map_err(|e| files::failed(dir, "list the folder", e))?;
        if let Some(step) = step_of(&entry.file_name().to_string_lossy()) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// After a resume at `step`: renames later checkpoints to `abandoned-step-…`, so that they neither count as newest nor take part in
/// rotation. Gives their new paths; nothing is deleted.
///
/// # Errors
/// When one cannot be renamed.
pub fn abandon_after(dir: &Path, step: i64) -> Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for (later, path) in list(dir)?.into_iter().filter(|(later, _)| *later > step) {
        let aside = free_name(dir, &format!("abandoned-{}", folder_name(later)?));
        disk::rename(&path, &aside).map_err(|e| files::failed(&path, "set aside", e))?;
        moved.push(aside);
    }
    Ok(moved)
}

/// Checks a checkpoint folder against its manifest.
fn verify(path: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(&path.join(MANIFEST))?;
    let named = path.file_name().and_then(|name| step_of(&name.to_string_lossy()));
    if named.is_some_and(|step| step != manifest.step) {
        bail!("{}: the manifest inside is of step {}", path.display(), manifest.step);
    }
    if !manifest.files.contains_key(STATE) {
        bail!("{}: `{STATE}` is not listed", path.join(MANIFEST).display());
    }
    for (name, digest) in &manifest.files {
        digest.check(&path.join(name))?;
    }
    Ok(manifest)
}

fn stage(staging: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let mut listed = BTreeMap::new();
    for (stem, tensors) in &checkpoint.tensors {
        let name = format!("{stem}.safetensors");
        if !manifest::is_plain_name(&name) {
            bail!("`{stem}` cannot be the name of a group of tensors: it must do as a file name");
        }
        let digest = write(&staging.join(&name), |out| stream_safetensors(out, tensors, &BTreeMap::new()))?;
        listed.insert(name, digest);
    }
    let state = serde_json::to_vec_pretty(&checkpoint.state)?;
    listed.insert(STATE.to_owned(), write(&staging.join(STATE), |out| Ok(out.write_all(&state)?))?);
    let manifest = Manifest { format: manifest::FORMAT, step: checkpoint.step, files: listed };
    let text = serde_json::to_vec_pretty(&manifest)?;
    write(&staging.join(MANIFEST), |out| Ok(out.write_all(&text)?)).map(drop)
}

/// Writes one staged file and hashes it on the way.
fn write(path: &Path, fill: impl FnOnce(&mut HashingWriter<BufWriter<Output>>) -> Result<()>) -> Result<FileDigest> {
    let written = || -> Result<FileDigest> {
        let mut out = HashingWriter::new(BufWriter::with_capacity(1 << 20, Output::create_new(path)?));
        fill(&mut out)?;
        out.finish().context("the last bytes did not reach the disk")
    };
    written().map_err(|e| files::failed(path, "write", e))
}

/// Removes what `keep` does not name of the checkpoints up to `step`. A folder loses its name before its files, so a kill
/// leaves no half of it listed.
fn rotate(dir: &Path, step: i64, keep: Keep) {
    let earlier = list(dir).unwrap_or_else(|error| {
        tracing::warn!("no older checkpoint is removed: {error:#}");
        Vec::new()
    });
    let earlier: Vec<_> = earlier.into_iter().rev().filter(|(s, _)| *s <= step).collect();
    let sound = earlier.iter().map(|(step, _)| *step).find(|&step| step < keep.sound_before);
    let is_kept = |step: i64| keep.every.is_some_and(|every| step % every == 0) || Some(step) == sound;
    for (_, path) in earlier.iter().skip(keep.last.max(1)).filter(|(step, _)| !is_kept(*step)) {
        if let Err(error) = remove(path) {
            tracing::warn!("an older checkpoint stays: {error:#}");
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    let doomed = files::staging_path(path)?;
    disk::rename(path, &doomed).map_err(|e| files::failed(path, "rotate out", e))?;
    disk::remove(&doomed).map_err(|e| files::failed(&doomed, "remove", e))
}

fn folder_name(step: i64) -> Result<String> {
    if step < 0 {
        bail!("a checkpoint cannot be of step {step}");
    }
    Ok(format!("step-{step:08}"))
}

fn step_of(name: &str) -> Option<i64> {
    let digits = name.strip_prefix("step-")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn free_name(dir: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let names = std::iter::once(name.to_owned()).chain(numbered);
    names.map(|name| dir.join(name)).find(|path| !path.exists()).expect("an endless list of names")
}
