//! The targets, and where they write when no test gives them a folder.

pub mod targets;

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A folder of this process, which is left behind with the last input.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("animatediff-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
});
