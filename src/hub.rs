//! Models named by where they are published: `hf:owner/repo[@revision][/path]` becomes a file or folder here.
//!
//! Files come from the Hugging Face hub into the cache that its own tools use, and are taken from there ever after:
//! a name that is in the cache is answered without the network, so a branch stays at the commit it was first
//! downloaded at until its `refs` file in the cache is removed. What is downloaded is checked against the hash that
//! the server announces. This part knows which files a model folder consists of, but not what is in them.

mod cache;
mod client;
mod error;
mod fetch;
mod name;
mod plan;
mod progress;
mod select;
mod settings;
mod verify;

pub use error::HubError;
pub use name::Name;
pub use progress::{Progress, on_progress};
pub use select::Unclear;
pub use settings::Settings;
pub use verify::hexadecimal;

use cache::RepoCache;
use client::Client;
use fetch::Fetcher;
use plan::Plan;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a hub name starts with.
pub const SCHEME: &str = "hf:";

/// Whether `path` is the name of something on the hub and not a path.
pub fn is_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(SCHEME.as_bytes())
}

/// The local file or folder that `path` stands for, with the [`Settings`] of the environment.
///
/// A path that is no hub name is returned as it is, and nothing is read. See [`Hub::local`].
pub fn local(path: &Path) -> Result<Cow<'_, Path>, HubError> {
    match is_name(path) {
        true => Hub::new(Settings::from_env()?)?.local(path),
        false => Ok(Cow::Borrowed(path)),
    }
}

/// A server and a cache.
pub struct Hub {
    cache: PathBuf,
    /// Absent where nothing may be contacted.
    client: Option<Client>,
    first_wait: Duration,
}

impl Hub {
    /// Contacts nobody yet. Fails if the file of certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, HubError> {
        let client = (!settings.offline).then(|| Client::new(&settings)).transpose()?;
        Ok(Self { cache: settings.cache, client, first_wait: Duration::from_millis(500) })
    }

    /// Sets the wait after the first break of a connection, 0.5 s by default; it doubles with each further one.
    pub fn first_wait(mut self, first_wait: Duration) -> Self {
        self.first_wait = first_wait;
        self
    }

    /// The local file or folder that `path` stands for.
    ///
    /// - no hub name: `path` itself
    /// - a file of the repository: that file in the cache, downloaded if it is not there
    /// - a folder of the repository, or the whole: the folder in the cache, after the files that a model folder
    ///   needs were downloaded to it. Of each component that is its configuration and one set of weights, safetensors
    ///   before others and full precision before half.
    pub fn local<'a>(&self, path: &'a Path) -> Result<Cow<'a, Path>, HubError> {
        if !is_name(path) {
            return Ok(Cow::Borrowed(path));
        }
        let given = path.to_string_lossy();
        let name: Name = given.parse()?;
        let cache = RepoCache::new(&self.cache, &name);
        if let Some(found) = cached(&cache, &name) {
            return Ok(Cow::Owned(found));
        }
        match &self.client {
            Some(client) => self.download(client, &cache, &name).map(Cow::Owned),
            None => offline(&cache, &name).map(Cow::Owned),
        }
    }

    fn download(&self, client: &Client, cache: &RepoCache, name: &Name) -> Result<PathBuf, HubError> {
        let listing = client.listing(name)?;
        let plan = Plan::new(name, &listing.names)?;
        let fetcher = Fetcher { client, cache, name, commit: &listing.commit, first_wait: self.first_wait };
        for file in plan.files.iter().filter(|file| !cache.has(&listing.commit, file)) {
            fetcher.fetch(file)?;
        }
        // Last, so that a download that is cut off leaves the commit before it in use.
        cache.store_listing(&listing.commit, &listing.names)?;
        cache.set_commit(&listing.commit)?;
        Ok(cache.pointer(&listing.commit, &plan.target))
    }
}

/// The file or folder, if all of it is in the cache for certain.
fn cached(cache: &RepoCache, name: &Name) -> Option<PathBuf> {
    let commit = cache.commit()?;
    if let Some(file) = name.path.as_deref().filter(|file| cache.has(&commit, file)) {
        return Some(cache.pointer(&commit, file));
    }
    let plan = Plan::new(name, &cache.listing(&commit)?).ok()?;
    plan.files.iter().all(|file| cache.has(&commit, file)).then(|| cache.pointer(&commit, &plan.target))
}

/// The file or folder from a cache that may have been filled by another program, which keeps no list of what there is.
fn offline(cache: &RepoCache, name: &Name) -> Result<PathBuf, HubError> {
    let lacks = |what: String| HubError::Offline { name: name.to_string(), what, cache: cache.root().to_owned() };
    let commit = cache.commit().ok_or_else(|| lacks(format!("revision `{}` of `{}`", name.revision(), name.repo)))?;
    let names = cache.listing(&commit).unwrap_or_else(|| cache.present(&commit));
    if names.is_empty() {
        return Err(lacks(format!("commit {commit} of `{}`", name.repo)));
    }
    let plan = Plan::new(name, &names).map_err(|error| match error {
        HubError::NoFile { path, .. } => lacks(format!("`{path}`")),
        other => other,
    })?;
    match plan.files.iter().find(|file| !cache.has(&commit, file)) {
        Some(file) => Err(lacks(format!("`{file}`"))),
        None => Ok(cache.pointer(&commit, &plan.target)),
    }
}
