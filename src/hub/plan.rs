//! Which files a name stands for, given the names of all files of the repository.

use super::error::HubError;
use super::name::Name;
use super::select::needed;

/// Least similarity, from 0 to 1, at which a file is proposed in place of one that does not exist.
const SIMILAR: f64 = 0.5;

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The file or folder, relative to the repository; empty for the whole.
    pub(super) target: String,
    /// The files that must be in the cache for it.
    pub(super) files: Vec<String>,
}

impl Plan {
    pub(super) fn new(name: &Name, names: &[String]) -> Result<Self, HubError> {
        let target = name.path.clone().unwrap_or_default();
        if names.contains(&target) {
            return Ok(Self { files: vec![target.clone()], target });
        }
        let start = if target.is_empty() { String::new() } else { format!("{target}/") };
        let below: Vec<&str> = names.iter().filter_map(|file| file.strip_prefix(&start)).collect();
        if below.is_empty() && !target.is_empty() {
            return Err(no_file(name, target, names));
        }
        let files = needed(&below).map_err(|why| HubError::Unclear { name: name.to_string(), why })?;
        Ok(Self { target, files: files.into_iter().map(|file| format!("{start}{file}")).collect() })
    }
}

fn no_file(name: &Name, path: String, names: &[String]) -> HubError {
    let nearest = nearest(&path, names);
    HubError::NoFile { name: name.to_string(), repo: name.repo.clone(), path, nearest }
}

fn nearest(path: &str, names: &[String]) -> Option<String> {
    let last = |path: &str| path.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    // A file of the right name in another folder is as good as one of nearly the right path.
    let likeness = |name: &String| {
        let whole = strsim::normalized_damerau_levenshtein(path, name);
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(&last(path), &last(name)))
    };
    let scored = names.iter().map(|name| (likeness(name), name)).filter(|(score, _)| *score >= SIMILAR);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.clone())
}
