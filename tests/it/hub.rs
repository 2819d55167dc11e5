//! Hub names against a server that behaves, and one that does not.

mod cache;
mod download;
mod names;
mod program;
mod requests;
mod select;
mod server;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use animatediff::hub::{Hub, HubError, Settings};
use tempfile::TempDir;

use server::Server;

const REPO: &str = "someone/motion";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server, and an empty cache.
struct Bench {
    server: Server,
    cache: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { server: Server::start(REPO, COMMIT), cache: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        let cache = self.cache.path().to_owned();
        Settings { cache, endpoint: self.server.endpoint(), token: None, offline: false, certificates: None }
    }

    fn hub(&self, change: impl FnOnce(&mut Settings)) -> Hub {
        let mut settings = self.settings();
        change(&mut settings);
        Hub::new(settings).unwrap().first_wait(Duration::from_millis(5))
    }

    fn get(&self, name: &str) -> Result<PathBuf, HubError> {
        self.hub(|_| ()).local(Path::new(name)).map(|path| path.into_owned())
    }

    fn why(&self, name: &str) -> String {
        self.get(name).unwrap_err().to_string()
    }

    fn offline(&self, name: &str) -> Result<PathBuf, HubError> {
        self.hub(|settings| settings.offline = true).local(Path::new(name)).map(|path| path.into_owned())
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--someone--motion")
    }

    /// Names in the folder of contents, sorted.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder().join("blobs")).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The content of a large file.
fn large() -> Vec<u8> {
    (0..100_000u32).map(|n| (n % 251) as u8).collect()
}
