//! The folder of a run: where its parts lie, and that one process at a time writes it. What goes into the parts is theirs to know.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::files::{self, failed};

const LOCK: &str = ".lock";
/// The folder of checkpoints in a run's folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// The rows of a run, one per step, in its folder.
pub const METRICS: &str = "metrics.jsonl";
/// The settings of a run, in its folder.
pub(crate) const CONFIG: &str = "config.yaml";
const STAMP: &str = "%Y-%m-%dT%H-%M-%S";
const WORDS: usize = 10;
const STEM_BYTES: usize = 100;

/// A run's folder, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes `<output_dir>/<name>-<local time>` with its empty parts. A second run within the same second gets `-2` behind it.
    ///
    /// # Errors
    /// When `name` is no plain name, or the place cannot be written: at once, before any work.
    pub fn create(output_dir: &Path, name: &str) -> Result<Self> {
        Self::check(output_dir, name)?;
        let stamped = format!("{name}-{}", jiff::Zoned::now().strftime(STAMP));
        let root = new_dir(output_dir, &stamped)?;
        Self::locked(root)?.with_parts()
    }

    /// Finds out, before any work, whether [`RunFolder::create`] will do.
    ///
    /// # Errors
    /// As those of [`RunFolder::create`].
    pub fn check(output_dir: &Path, name: &str) -> Result<()> {
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
            bail!("`{name}` cannot be the name of a run: it becomes part of a folder's name");
        }
        files::check_writable(output_dir)
    }

    /// Makes `<output_dir>/debug` anew, removing what a run without that name of its own left there.
    ///
    /// # Errors
    /// When another process is writing it, it is not a folder of its own (a link), or the place cannot be written.
    pub fn debug(output_dir: &Path) -> Result<Self> {
        files::check_writable(output_dir)?;
        let root = Self::debug_path(output_dir);
        if root.is_symlink() {
            bail!("{}: this is a link, and its target would be emptied; remove it", root.display());
        }
        fs::create_dir_all(&root).map_err(|e| failed(&root, "create the folder", e))?;
        let run = Self::locked(root)?;
        run.wipe()?;
        run.with_parts()
    }

    /// Where [`RunFolder::debug`] is made.
    pub(crate) fn debug_path(output_dir: &Path) -> PathBuf {
        output_dir.join("debug")
    }

    /// Opens the folder of an earlier run, to resume it.
    ///
    /// # Errors
    /// When it is not a run's folder (no `config.yaml`), another process is writing it, or it cannot be written.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.join(CONFIG).is_file() {
            bail!("{}: no {CONFIG} in it, so this is not the folder of a run", root.display());
        }
        files::check_writable(root)?;
        Self::locked(root.to_owned())?.with_parts()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The settings that the run was started with.
    pub fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// One JSON row per step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join(METRICS)
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The first batch, as the model sees it.
    pub fn sanity_check(&self) -> PathBuf {
        self.root.join("sanity_check")
    }

    /// What the model makes of the validation prompts.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// What resuming needs.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS)
    }

    /// Weights for other tools.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    fn locked(root: PathBuf) -> Result<Self> {
        let lock = lock(&root)?;
        files::remove_staging(&root)?;
        Ok(Self { root, _lock: lock })
    }

    fn with_parts(self) -> Result<Self> {
        for part in [self.tensorboard(), self.sanity_check(), self.samples(), self.checkpoints(), self.export()] {
            fs::create_dir_all(&part).map_err(|e| failed(&part, "create the folder", e))?;
        }
        // A checkpoint in it is worth no more than the names of the folders above it.
        for dir in self.root.ancestors().take(2).filter(|dir| !dir.as_os_str().is_empty()) {
            files::disk::sync(dir).map_err(|e| failed(dir, "sync the folder", e))?;
        }
        Ok(self)
    }

    /// Removes everything but the lock, which other processes may be waiting at.
    fn wipe(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).map_err(|e| failed(&self.root, "list the folder", e))? {
            let entry = entry.map_err(|e| failed(&self.root, "list the folder", e))?;
            if entry.file_name() != LOCK {
                files::disk::remove(&entry.path()).map_err(|e| failed(&entry.path(), "remove", e))?;
            }
        }
        Ok(())
    }
}

/// A file name made of a caption: its first ten words joined by `-`, of letters, digits and `._-` only, at most 100 bytes.
/// `fallback` is taken as it is for a caption that leaves nothing.
pub fn file_stem(caption: &str, fallback: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let words = caption.split_whitespace().take(WORDS).map(|word| word.chars().filter(allowed).collect::<String>());
    let mut stem = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    stem.truncate(STEM_BYTES);
    // Leading dots hide files, leading dashes look like options, and a trailing dot or dash is a torn word.
    let stem = stem.trim_matches(['.', '-']);
    if stem.is_empty() { fallback.to_owned() } else { stem.to_owned() }
}

/// When a run called `name` was started whose folder is called `folder`, and which it was of those started in that second;
/// `None` for other folders.
pub(crate) fn started(folder: &str, name: &str) -> Option<(jiff::civil::DateTime, u32)> {
    let stamped = folder.strip_prefix(name)?.strip_prefix('-')?;
    let (stamp, number) = stamped.split_at_checked("0000-00-00T00-00-00".len())?;
    let number = if number.is_empty() { 1 } else { number.strip_prefix('-')?.parse().ok()? };
    Some((jiff::civil::DateTime::strptime(STAMP, stamp).ok()?, number))
}

/// Takes the lock of a run's folder, or says who has it. The operating system lets go of it with the process, however that ends.
pub(crate) fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| failed(&path, "open", e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            bail!("{}: another process is writing here ({})", root.display(), owner.trim());
        }
        other => other.with_context(|| format!("{}: cannot lock the run", path.display()))?,
    }
    file.set_len(0).map_err(|e| failed(&path, "write", e))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    writeln!(file, "pid {} on {host}", std::process::id()).map_err(|e| failed(&path, "write", e))?;
    Ok(file)
}

fn new_dir(parent: &Path, name: &str) -> Result<PathBuf> {
    let numbered = (2..100).map(|n| format!("{name}-{n}"));
    for name in std::iter::once(name.to_owned()).chain(numbered) {
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| path.clone()).map_err(|e| failed(&path, "create the folder", e)),
        }
    }
    bail!("{}: a hundred runs were started within this second", parent.join(name).display())
}
