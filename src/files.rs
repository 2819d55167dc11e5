//! Files that are either whole or absent.
//!
//! Every writer of this crate goes through here: bytes are staged beside their target as `.NAME.partial-PID`, synced, and renamed
//! into place, so a killed process or a full disk never leaves something half-written under a name that a reader trusts.
//! What is in the files is none of this module's business.

pub mod disk;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use disk::Output;

const BUFFER_BYTES: usize = 1 << 20;

/// Writes the file `path` through `fill`: staged beside it, flushed, synced, renamed, and the folder synced.
///
/// # Errors
/// Names the path and the step that failed, and for a full disk the space that is left. An error from `fill` is passed on.
/// Whatever was at `path` before is then untouched, and the staged file is gone.
pub fn write_atomic<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<Output>) -> Result<T>) -> Result<T> {
    let staged = Staged(staging_path(path)?);
    let file = Output::create(&staged.0).map_err(|e| failed(path, "create its staging file", e))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let value = fill(&mut out).map_err(|e| failed(path, "write", e))?;
    let file = out.into_inner().map_err(|e| failed(path, "write", e.into_error()))?;
    file.sync().map_err(|e| failed(path, "sync", e))?;
    drop(file);
    disk::rename(&staged.0, path).map_err(|e| failed(path, "rename its staging file into place", e))?;
    disk::sync(parent(path)).map_err(|e| failed(path, "sync the folder of", e))?;
    Ok(value)
}

/// Makes the finished folder `staging` appear as `target`: syncs every file and folder in it, renames it, syncs the parent.
///
/// A folder that is already at `target` is exchanged in one step and removed afterwards. Both must be in the same parent.
///
/// # Errors
/// Names the path and the step. `staging` is left to the caller to remove.
pub fn commit_dir(staging: &Path, target: &Path) -> Result<()> {
    sync_tree(staging).map_err(|e| failed(staging, "sync", e))?;
    if target.exists() {
        exchange(staging, target).map_err(|e| failed(target, "replace", e))?;
        disk::sync(parent(target)).map_err(|e| failed(target, "sync the folder of", e))?;
        disk::remove(staging).map_err(|e| failed(staging, "remove what was replaced:", e))
    } else {
        disk::rename(staging, target).map_err(|e| failed(target, "rename the staged folder to", e))?;
        disk::sync(parent(target)).map_err(|e| failed(target, "sync the folder of", e))
    }
}

/// Makes the folder `target` through `fill`, which gets a staging folder beside it: it appears whole or not at all, and
/// what was at `target` before is untouched until then. What a killed process of the same number left staged is removed.
///
/// # Errors
/// Those of `fill`, and of [`commit_dir`]; the staging folder is then gone.
pub fn write_dir<T>(target: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let staging = staging_path(target)?;
    if staging.exists() {
        disk::remove(&staging).map_err(|e| failed(&staging, "remove the leftover", e))?;
    }
    let made = disk::create_dir_all(&staging).map_err(|e| failed(&staging, "create the folder", e));
    let written = made.and_then(|()| {
        let value = fill(&staging)?;
        commit_dir(&staging, target)?;
        Ok(value)
    });
    if written.is_err() {
        let _ = disk::remove(&staging);
    }
    written
}

/// Creates `dir` with its parents, and proves with a probe file that this process can write there.
///
/// # Errors
/// Says why the folder cannot be created or written.
pub fn check_writable(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| failed(dir, "create the folder", e))?;
    let probe = Staged(staging_path(&dir.join("probe"))?);
    let write = || -> io::Result<()> {
        let mut file = File::create(&probe.0)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    };
    write().map_err(|e| failed(dir, "write in the folder", e))
}

/// Bytes that this process may still write on the file system that holds `path` (which must exist).
///
/// # Errors
/// When the file system does not answer.
pub fn free_space(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("{}: cannot ask for free space", path.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A second hold on a file that is being written, for another thread to sync it.
#[derive(Debug)]
pub(crate) struct Written {
    path: PathBuf,
    file: File,
}

impl Written {
    pub(crate) fn new(path: &Path, file: &File) -> Result<Written> {
        let file = file.try_clone().map_err(|e| failed(path, "open again", e))?;
        Ok(Written { path: path.to_owned(), file })
    }

    /// Waits until all that was written before is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| failed(&self.path, "sync", e))
    }
}

/// Where something on its way to `path` is staged: `.NAME.partial-PID` in the same folder.
///
/// # Errors
/// When `path` ends in no name that a file could have.
pub fn staging_path(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| anyhow!("{}: this is not the path of a file", path.display()))?;
    let mut staged = std::ffi::OsString::from(".");
    staged.push(name);
    staged.push(format!(".partial-{}", std::process::id()));
    Ok(path.with_file_name(staged))
}

/// Removes what killed processes left staged in `dir`, files and folders, and gives their number.
///
/// Only for folders that nobody else is writing: the caller holds the lock of the run, or knows that there is none to hold.
///
/// # Errors
/// When the folder cannot be listed or a leftover cannot be removed.
pub fn remove_staging(dir: &Path) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, "list the folder", e))? {
        let entry = entry.map_err(|e| failed(dir, "list the folder", e))?;
        if !is_staging(&entry.file_name().to_string_lossy()) {
            continue;
        }
        disk::remove(&entry.path()).map_err(|e| failed(&entry.path(), "remove the leftover", e))?;
        removed += 1;
    }
    Ok(removed)
}

/// Copies a file, or a folder with all that is in it, making the folders that it goes into.
///
/// # Errors
/// Names both paths.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("{}: cannot be copied to {}", from.display(), to.display());
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::create_dir_all(parent(to)).with_context(failed)?;
    fs::copy(from, to).with_context(failed)?;
    Ok(())
}

/// An error that names the path and the step, with the free space where the disk is full.
pub(crate) fn failed(path: &Path, step: &str, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let full =
        error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::StorageFull);
    let free = existing_ancestor(path).filter(|_| full).and_then(|dir| free_space(dir).ok());
    match free {
        Some(free) => {
            error.context(format!("{}: cannot {step}, the disk is full ({} free)", path.display(), mib(free)))
        }
        None => error.context(format!("{}: cannot {step}", path.display())),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn existing_ancestor(path: &Path) -> Option<&Path> {
    path.ancestors().find(|p| p.exists())
}

/// The folder of `path`; a bare name lies in the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn is_staging(name: &str) -> bool {
    let Some((_, pid)) = name.strip_prefix('.').and_then(|rest| rest.rsplit_once(".partial-")) else { return false };
    !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync_tree(&entry.path())? } else { disk::sync(&entry.path())? }
    }
    disk::sync(dir)
}

/// Swaps two folders. File systems without an atomic exchange get two renames; a crash between them loses the name `target`,
/// and `staging` is then a leftover: the caller's older copies are what remains.
fn exchange(staging: &Path, target: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match disk::exchange(staging, target) {
        Err(error)
            if [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
                .map(Errno::raw_os_error)
                .map(Some)
                .contains(&error.raw_os_error()) =>
        {
            let aside = staging.with_file_name(format!(".replaced.partial-{}", std::process::id()));
            disk::rename(target, &aside)?;
            disk::rename(staging, target)?;
            disk::rename(&aside, staging)
        }
        other => other,
    }
}

/// A staged file, removed when it is dropped before its rename; after the rename there is nothing to remove.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = disk::remove(&self.0);
    }
}
