//! The written form of a hub name, `hf:owner/repo[@revision][/path]`.
//!
//! Only the text is looked at here: whether the repository exists is for the hub to say.

use super::SCHEME;
use super::error::HubError;
use std::fmt;
use std::str::FromStr;

/// A model repository on the hub, or one file or folder in it.
///
/// A revision is a branch, a tag or a commit. One that contains `/` is written with `%2F`:
/// `hf:owner/repo@refs%2Fpr%2F1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `owner/repo`.
    pub repo: String,
    /// Branch, tag or commit; the branch `main` when absent.
    pub revision: Option<String>,
    /// File or folder in the repository, with `/` between its parts; the whole repository when absent.
    pub path: Option<String>,
}

impl Name {
    /// The revision, `main` where none is given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl FromStr for Name {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |why: String| HubError::Name { given: text.to_owned(), why };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| refuse(format!("it does not start with `{SCHEME}`")))?;
        let mut parts = rest.splitn(3, '/');
        let owner = parts.next().unwrap_or_default();
        let second = parts.next().ok_or_else(|| refuse("the `/` between owner and repository is missing".into()))?;
        let (repo, revision) = match second.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision.replace("%2F", "/").replace("%2f", "/"))),
            None => (second, None),
        };
        check_part("owner", owner).map_err(refuse)?;
        check_part("repository", repo).map_err(refuse)?;
        revision.as_deref().map_or(Ok(()), check_revision).map_err(refuse)?;
        let path = parts.next().map(|path| path.strip_suffix('/').unwrap_or(path)).filter(|path| !path.is_empty());
        path.map_or(Ok(()), check_path).map_err(refuse)?;
        Ok(Self { repo: format!("{owner}/{repo}"), revision, path: path.map(str::to_owned) })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        match &self.path {
            Some(path) => write!(f, "/{path}"),
            None => Ok(()),
        }
    }
}

/// Whether `path` stays below the folder it is joined to: relative, and without `.`, `..` or empty parts.
pub(super) fn is_inside(path: &str) -> bool {
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn check_part(what: &str, part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if let Some(odd) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        return Err(format!("the {what} `{part}` contains `{odd}`; letters, digits, `-`, `_` and `.` are allowed"));
    }
    // `--` separates owner and repository in the cache's folder names.
    if part.starts_with(['.', '-']) || part.contains("..") || part.contains("--") {
        return Err(format!("the {what} `{part}` starts with `.` or `-`, or contains `..` or `--`"));
    }
    Ok(())
}

fn check_revision(revision: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    if revision.is_empty() {
        return Err("the revision after `@` is empty".into());
    }
    if !revision.chars().all(plain) || !is_inside(revision) {
        return Err(format!("`{revision}` is no branch, tag or commit (a `/` in a branch is written `%2F`)"));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    match is_inside(path) {
        true => Ok(()),
        false => {
            Err(format!("the path `{path}` leaves the repository: it must be relative, without `.`, `..` or `//`"))
        }
    }
}
