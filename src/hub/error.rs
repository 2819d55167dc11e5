//! Everything that can keep a hub name from becoming a file.

use super::select::Unclear;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a hub name has no local file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name is not `hf:owner/repo[@revision][/path]`.
    #[error("`{given}` is no hub name: {why}; expected hf:owner/repo[@revision][/path]")]
    Name {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// An environment variable cannot be used.
    #[error("{variable}: {why}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What is wrong, and what is expected.
        why: String,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("{}: {source}; the cache's place is set by HF_HUB_CACHE or HF_HOME", .path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The program may not use the network, and the cache does not hold what is needed.
    #[error(
        "{name}: {what} is not in the cache {}, and HF_HUB_OFFLINE forbids to download it; unset it once, or copy \
         the cache from elsewhere",
        .cache.display()
    )]
    Offline {
        /// The hub name.
        name: String,
        /// What is missing.
        what: String,
        /// The repository's folder in the cache.
        cache: PathBuf,
    },
    /// The server asks for a token, or does not accept the one it got.
    #[error("{url}: the server refuses access ({status}): {why}")]
    Denied {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        why: String,
    },
    /// There is no such repository.
    #[error("{name}: {host} has no model repository `{repo}` (or it is private, and HF_TOKEN gives no access to it)")]
    NoRepo {
        /// The hub name.
        name: String,
        /// The repository.
        repo: String,
        /// The server.
        host: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{name}: `{repo}` has no revision `{revision}`; leave `@{revision}` out for the branch main")]
    NoRevision {
        /// The hub name.
        name: String,
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The repository has neither a file nor a folder of this path.
    #[error("{name}: `{repo}` has no file or folder `{path}`{}", suggestion(.nearest))]
    NoFile {
        /// The hub name.
        name: String,
        /// The repository.
        repo: String,
        /// The path.
        path: String,
        /// The file that looks most like it.
        nearest: Option<String>,
    },
    /// It does not follow from the names which files are the model.
    #[error("{name}: {why}")]
    Unclear {
        /// The hub name.
        name: String,
        /// What is unclear, and what to add.
        why: Unclear,
    },
    /// No answer from the server.
    #[error(
        "{host} does not answer: {why}; check the network, set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1 to use \
         the cache alone"
    )]
    Unreachable {
        /// The server.
        host: String,
        /// What the connection says.
        why: String,
    },
    /// An answer other than the file.
    #[error("{url}: the server answers with status {status}; try again later")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not the hub's.
    #[error("{url}: {why}; is HF_ENDPOINT a Hugging Face hub?")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The connection broke in the middle of a file.
    #[error("{file}: the connection broke after {have} of {size} bytes: {why}")]
    Broken {
        /// Path in the repository.
        file: String,
        /// Bytes that have arrived.
        have: u64,
        /// Bytes of the whole file.
        size: u64,
        /// What the connection says.
        why: String,
    },
    /// The download broke too often.
    #[error("{last}; given up after {attempts} attempts. The bytes that arrived are kept: run again to resume")]
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// How the last attempt ended.
        last: Box<HubError>,
    },
    /// The bytes are not those the server announced.
    #[error(
        "{file}: the downloaded bytes are wrong: expected {expected}, found {found}. Nothing was kept, run again; if \
         it repeats, the server's copy is damaged"
    )]
    Damaged {
        /// Path in the repository.
        file: String,
        /// The hash or size that was announced.
        expected: String,
        /// The one that was found.
        found: String,
    },
}

impl HubError {
    /// Whether the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
