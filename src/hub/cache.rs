//! One repository's folder in the cache, in the layout that all of the hub's tools share.
//!
//! `blobs/<hash>` holds contents, `snapshots/<commit>/<path>` links to them, and `refs/<revision>` names a commit.
//! A blob appears under its name only once it is complete and checked (see `fetch`), so a link that leads to a file
//! is trusted. `.animatediff/<commit>.json` is ours: the names of all files of a commit, by which a folder is known
//! to be complete without asking the server. Nothing here uses the network.

use super::error::HubError;
use super::name::{Name, is_inside};
use super::progress::{Progress, report};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The repository and revision of one name, in one cache.
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
    paths: CacheRepo,
    revision: String,
}

/// A file that this process alone may write; released when dropped.
pub(super) struct Lock {
    _file: File,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, name: &Name) -> Self {
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, name.revision().to_owned());
        Self {
            root: cache.join(repo.folder_name()),
            locks: cache.join(".locks").join(repo.folder_name()),
            revision: name.revision().to_owned(),
            paths: Cache::new(cache.to_owned()).repo(repo),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that the revision stood for when it was last downloaded; a full commit stands for itself.
    pub(super) fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let text = fs::read_to_string(self.root.join("refs").join(&self.revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Makes the revision stand for `commit`.
    pub(super) fn set_commit(&self, commit: &str) -> Result<(), HubError> {
        match is_commit(&self.revision) {
            true => Ok(()),
            false => self.write(&self.root.join("refs").join(&self.revision), commit.as_bytes()),
        }
    }

    pub(super) fn blob(&self, digits: &str) -> PathBuf {
        self.paths.blob_path(digits)
    }

    /// Where a file or folder of a commit is, or would be; the commit's folder for an empty `path`.
    pub(super) fn pointer(&self, commit: &str, path: &str) -> PathBuf {
        let snapshot = self.paths.pointer_path(commit);
        if path.is_empty() { snapshot } else { snapshot.join(path) }
    }

    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.pointer(commit, file).is_file()
    }

    /// Makes `file` of `commit` a link to the blob, in place of whatever was there.
    pub(super) fn point(&self, commit: &str, file: &str, digits: &str) -> Result<(), HubError> {
        let pointer = self.pointer(commit, file);
        let up = Path::new(file).components().filter(|part| matches!(part, Component::Normal(_))).count() + 1;
        let target = PathBuf::from("../".repeat(up)).join("blobs").join(digits);
        let link = self.scratch();
        make_parent(&pointer)?;
        std::os::unix::fs::symlink(&target, &link).map_err(at(&link))?;
        fs::rename(&link, &pointer).map_err(at(&pointer))
    }

    /// Names of all files of a commit, if they were stored; else `None`.
    pub(super) fn listing(&self, commit: &str) -> Option<Vec<String>> {
        let text = fs::read(self.listing_path(commit)).ok()?;
        let names: Vec<String> = serde_json::from_slice(&text).ok()?;
        names.iter().all(|name| is_inside(name)).then_some(names)
    }

    pub(super) fn store_listing(&self, commit: &str, names: &[String]) -> Result<(), HubError> {
        let path = self.listing_path(commit);
        let text = serde_json::to_vec(names).map_err(|error| at(&path)(error.into()))?;
        self.write(&path, &text)
    }

    /// Names of the files of a commit that are here, for caches that other programs filled.
    pub(super) fn present(&self, commit: &str) -> Vec<String> {
        let snapshot = self.pointer(commit, "");
        let (mut names, mut folders) = (Vec::new(), vec![snapshot.clone()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                match path.strip_prefix(&snapshot).ok().and_then(Path::to_str) {
                    Some(name) if path.is_file() => names.push(name.to_owned()),
                    Some(_) if path.is_dir() => folders.push(path),
                    _ => {}
                }
            }
        }
        names
    }

    /// Waits until no other process, of this program or the hub's Python library, downloads the blob.
    pub(super) fn lock(&self, digits: &str, file: &str) -> Result<Lock, HubError> {
        let path = self.locks.join(format!("{digits}.lock"));
        make_parent(&path)?;
        let handle = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                report(Progress::Wait { file });
                handle.lock().map_err(at(&path))?;
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        Ok(Lock { _file: handle })
    }

    fn listing_path(&self, commit: &str) -> PathBuf {
        self.root.join(".animatediff").join(format!("{commit}.json"))
    }

    /// Writes a small file so that others see all of it or the one before.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), HubError> {
        make_parent(path)?;
        let scratch = self.scratch();
        fs::write(&scratch, content).map_err(at(&scratch))?;
        fs::rename(&scratch, path).map_err(at(path))
    }

    /// A name that no other thread or process uses, on the file system of the cache.
    fn scratch(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!(".scratch-{}-{count}", unique()))
    }
}

/// Process id and start time: on a shared file system two machines may use one id.
fn unique() -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}", std::process::id(), time.as_nanos())
}

/// Turns a system error into one that names the path.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Cache { path: path.clone(), source }
}

pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(at(parent))
}

/// Whether `text` is a full commit, and so a safe folder name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}
