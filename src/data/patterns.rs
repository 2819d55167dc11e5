//! Patterns of file names: braces, and stars in the last part of a path.

use std::fs;
use std::path::{Path, PathBuf};

use super::faults::{DataError, fault};
use super::picture::natural;

/// Names that braces may stand for, at most.
const NAMES: usize = 1_000_000;

/// The files that `patterns` name, in their order and each once: `{000..099}` and `{a,b}` stand for several names, `*` and `?` for what is
/// there, in the order of the numbers in its names.
///
/// # Errors
/// For a pattern that is wrong, or that stands for a file that is not there, or for a folder.
pub(super) fn files(patterns: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for pattern in patterns {
        files.append(&mut named(pattern)?);
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

/// The files that one pattern names.
fn named(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    if pattern.is_empty() {
        return Err(DataError::Config(
            "`shards` has an empty name; name an archive, such as `data/{000..099}.tar`".into(),
        ));
    }
    let bad = |reason: String| fault(Path::new(pattern), format!("{reason}; correct `shards`"));
    let mut files = Vec::new();
    for name in braces(pattern).map_err(bad)? {
        let path = PathBuf::from(&name);
        if name.contains(['*', '?']) { files.append(&mut stars(&path)?) } else { files.push(path) }
    }
    let missing: Vec<&PathBuf> = files.iter().filter(|file| !file.exists()).collect();
    match (missing.first(), files.iter().find(|file| file.is_dir())) {
        (Some(_), _) if files.len() == 1 => Err(bad("no such archive".into())),
        (Some(first), _) => Err(bad(format!(
            "{} of the {} archives that it stands for are not there, first {}",
            missing.len(),
            files.len(),
            first.display()
        ))),
        (None, Some(folder)) => Err(fault(
            folder,
            format!("a folder; have `shards` name archives, such as `{}`", folder.join("*.tar").display()),
        )),
        (None, None) => Ok(files),
    }
}

/// All names that the braces in `pattern` stand for.
fn braces(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let close = pattern[open..].find('}').ok_or("a brace that is not closed")? + open;
    let inside = &pattern[open + 1..close];
    if inside.contains('{') {
        return Err("braces in braces".into());
    }
    let parts = match inside.split_once("..") {
        Some((first, last)) => numbers(first, last)?,
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let rests = braces(&pattern[close + 1..])?;
    if parts.len().saturating_mul(rests.len()) > NAMES {
        return Err(format!("more than {NAMES} names"));
    }
    let head = &pattern[..open];
    Ok(parts.iter().flat_map(|part| rests.iter().map(move |rest| format!("{head}{part}{rest}"))).collect())
}

/// The numbers from `first` to `last`, as wide as `first` is written.
fn numbers(first: &str, last: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>()
            .ok()
            .filter(|_| digits)
            .ok_or(format!("`{text}` is no number of a range such as {{000..099}}"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if to < from || to - from >= NAMES {
        return Err(format!("a range from {first} to {last}; the first number has to be the smaller one"));
    }
    let width = first.len();
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

/// The files whose name fits the last part of `pattern`.
fn stars(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = pattern.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if parent.to_string_lossy().contains(['*', '?']) {
        return Err(fault(pattern, "`*` and `?` serve in the last part of a path only; name the folder in `shards`"));
    }
    let unlisted = |error: std::io::Error| fault(parent, format!("cannot be listed ({error}); correct `shards`"));
    let mut files = Vec::new();
    for entry in fs::read_dir(parent).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        let found = entry.file_name();
        if found.to_str().is_some_and(|found| !found.starts_with('.') && fits(name.as_bytes(), found.as_bytes())) {
            files.push(pattern.with_file_name(found));
        }
    }
    files.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    if files.is_empty() {
        return Err(fault(pattern, format!("nothing in {} has such a name; correct `shards`", parent.display())));
    }
    Ok(files)
}

/// Whether `name` fits `pattern`: `*` is any number of bytes, `?` one.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how much it has taken.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
