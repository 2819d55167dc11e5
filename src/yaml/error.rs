//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the user's file; the line counts from 1.
    File {
        /// As the user named it.
        path: PathBuf,
        /// `None` where the parser gives no place.
        line: Option<usize>,
    },
    /// On the command line, with the text after `--set`.
    Set(String),
    /// In the defaults of the stage, or nowhere.
    Defaults,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Origin::File { path, line: None } => write!(f, "{}", path.display()),
            Origin::Set(text) => write!(f, "--set {text}"),
            Origin::Defaults => f.write_str("configuration"),
        }
    }
}

/// One mistake, as a line for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was made.
    pub origin: Origin,
    /// What it is, with the dotted key.
    pub message: String,
}

impl Problem {
    pub(super) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Everything that is wrong with a configuration: one line each, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// In the order of the file where that is known.
    pub problems: Vec<Problem>,
}

impl YamlError {
    /// `value` when nothing is wrong with it.
    pub(super) fn or<T>(value: T, problems: Vec<Problem>) -> Result<T, Self> {
        if problems.is_empty() { Ok(value) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for YamlError {}

/// A parser's message without the line that is named before it already.
pub(super) fn without_place(message: &str) -> &str {
    let at = [" at line ", " in line "].iter().filter_map(|mark| message.find(mark)).min();
    at.map_or(message, |at| &message[..at])
}
