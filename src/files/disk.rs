//! The operations on the file system that writing whole files and folders is made of, each of which a test can refuse.
//!
//! Without a watcher, which only tests have, an operation costs a look at a variable of its thread.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A file or a folder is made.
    Create,
    /// Bytes go into a file.
    Write,
    /// A file or a folder is synced.
    Sync,
    /// Something gets another name.
    Rename,
    /// A file, or a folder with all that is in it, is removed.
    Remove,
}

type Watcher = Box<dyn FnMut(Operation, &Path) -> io::Result<()>>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Asks `watcher` before every operation of this thread, for as long as the value lives; one that it refuses is not done and
/// fails with its error.
#[must_use = "watching ends when this is dropped"]
pub fn watch(watcher: impl FnMut(Operation, &Path) -> io::Result<()> + 'static) -> Watching {
    WATCHER.set(Some(Box::new(watcher)));
    Watching(())
}

/// See [`watch`].
#[derive(Debug)]
pub struct Watching(());

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHER.take();
    }
}

fn ask(operation: Operation, path: &Path) -> io::Result<()> {
    WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map_or(Ok(()), |watcher| watcher(operation, path)))
}

/// A file that is being written.
#[derive(Debug)]
pub struct Output {
    file: File,
    path: PathBuf,
}

impl Output {
    /// Makes the file, or empties it.
    pub(crate) fn create(path: &Path) -> io::Result<Output> {
        ask(Operation::Create, path)?;
        Ok(Output { file: File::create(path)?, path: path.to_owned() })
    }

    /// Makes the file, which must not be there.
    pub(crate) fn create_new(path: &Path) -> io::Result<Output> {
        ask(Operation::Create, path)?;
        Ok(Output { file: File::create_new(path)?, path: path.to_owned() })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        ask(Operation::Sync, &self.path)?;
        self.file.sync_all()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ask(Operation::Write, &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Output {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Makes a folder with those above it; one that is there is none to make.
pub(crate) fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    ask(Operation::Create, dir)?;
    fs::create_dir_all(dir)
}

/// Syncs a file, or a folder: the names in it then survive a power cut.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    ask(Operation::Sync, path)?;
    File::open(path)?.sync_all()
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    ask(Operation::Rename, to)?;
    fs::rename(from, to)
}

/// Swaps two folders in one step, where the file system can.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    ask(Operation::Rename, other)?;
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Removes a file, or a folder with all that is in it; a link is removed itself, never followed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let is_dir = fs::symlink_metadata(path)?.is_dir();
    ask(Operation::Remove, path)?;
    if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
