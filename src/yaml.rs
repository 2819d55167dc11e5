//! Strict, layered YAML: defaults of a stage, a user's file, `--set` values, and a typed configuration out of them.
//!
//! Mappings merge key by key, everything else replaces. Every key must be one that the type knows and every value of its type;
//! whatever is not is reported with its place, all of it at once. What the keys mean, and which values make sense together, is for
//! the types that are loaded.
//!
//! Types should not use `#[serde(flatten)]` or tagged enums around structs: serde then hides unknown keys, unless those structs
//! also `deny_unknown_fields`.

mod error;
mod expectation;
mod fields;
mod lines;
mod merge;
mod overrides;
mod suggest;
mod typed;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::{Origin, Problem, YamlError};
use overrides::Override;

/// A user's file: where it came from and what it says.
#[derive(Debug, Clone, Copy)]
pub struct UserFile<'a> {
    /// Named in errors.
    pub path: &'a Path,
    /// The text itself; nothing here opens files.
    pub text: &'a str,
}

/// What a configuration is made of, from weakest to strongest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layers<'a> {
    /// The defaults of the stage; null for none.
    pub defaults: Option<&'a serde_yaml::Value>,
    /// The user's file.
    pub file: Option<UserFile<'a>>,
    /// `--set` values, `a.b=value`: the value is YAML, a number between dots is the place in a list, a later one wins.
    pub overrides: &'a [String],
    /// Dotted keys of sections that a later layer replaces whole instead of merging into them.
    pub replaced: &'a [&'a str],
}

/// Merges the layers and reads a `T` from them.
///
/// # Errors
/// Everything that is wrong, as far as one load can see: syntax (file and line), unknown keys (with the nearest valid one), values of
/// the wrong type (what was expected, what was found), `--set` values that say nothing.
pub fn load<T: DeserializeOwned>(layers: Layers<'_>) -> Result<T, YamlError> {
    let stack = Stack::parse(layers)?;
    typed::read(&stack)
}

/// Says where the value of the dotted `key` comes from: `train.yaml:12`, `--set key=value`, or the defaults. For errors of later
/// checks, so that they name the place as those of [`load`] do.
pub fn origin(layers: Layers<'_>, key: &str) -> Origin {
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    Stack::parse(layers).map_or(Origin::Defaults, |stack| stack.origin(&path))
}

/// The YAML text of a configuration, for `--print-config` and for the folder of a run; [`load`] reads it back.
///
/// # Panics
/// When the type cannot be written as YAML (enums inside enums), which is a mistake in the type and not in its values.
pub fn to_text<T: Serialize>(config: &T) -> String {
    serde_yaml::to_string(config).expect("configurations can be written as YAML")
}

/// The layers, parsed and merged.
struct Stack<'a> {
    merged: Value,
    defaults: Value,
    file: Option<ParsedFile<'a>>,
    overrides: Vec<Override>,
}

struct ParsedFile<'a> {
    path: &'a Path,
    value: Value,
    lines: lines::Lines,
}

impl<'a> Stack<'a> {
    fn parse(layers: Layers<'a>) -> Result<Self, YamlError> {
        let mut problems = Vec::new();
        let defaults = layers.defaults.cloned().map_or(Ok(Value::Null), |value| merge::to_json(value, "the defaults"));
        let defaults =
            defaults.map_err(|message| problems.push(Problem::new(Origin::Defaults, message))).unwrap_or_default();
        let file = layers.file.map(ParsedFile::parse).transpose();
        let file = file.map_err(|problem| problems.push(problem)).unwrap_or_default();
        let overrides = layers
            .overrides
            .iter()
            .filter_map(|text| Override::parse(text).map_err(|problem| problems.push(problem)).ok());
        let overrides: Vec<_> = overrides.collect();

        let mut merged = defaults.clone();
        if let Some(file) = &file {
            merge::overlay(&mut merged, file.value.clone(), &mut Vec::new(), layers.replaced);
        }
        for one in &overrides {
            if let Err(problem) = one.apply(&mut merged, layers.replaced) {
                problems.push(problem);
            }
        }
        YamlError::or(Self { merged, defaults, file, overrides }, problems)
    }

    /// Where the value at `path`, or the section that lacks it, was written last.
    fn origin(&self, path: &[String]) -> Origin {
        let set = |inside: &dyn Fn(&Override) -> bool| self.overrides.iter().rev().find(|one| inside(one));
        if let Some(one) = set(&|one| path.starts_with(&one.path)) {
            return Origin::Set(one.text.clone());
        }
        let in_file = |path: &[String]| self.file.as_ref().filter(|file| merge::get(&file.value, path).is_some());
        if let Some(file) = in_file(path) {
            return file.at(path);
        }
        if let Some(one) = set(&|one| one.path.starts_with(path)) {
            return Origin::Set(one.text.clone());
        }
        let above = (1..path.len()).rev().find_map(|depth| in_file(&path[..depth]).map(|file| file.at(&path[..depth])));
        above.unwrap_or(Origin::Defaults)
    }
}

impl<'a> ParsedFile<'a> {
    fn parse(file: UserFile<'a>) -> Result<Self, Problem> {
        let path = file.path;
        let at = |line| Origin::File { path: path.to_owned(), line };
        let syntax = |error: serde_yaml::Error| {
            let message = error.to_string();
            let lines = lines::Lines::scan(file.text);
            if let Some((key, first, second)) = lines.double().filter(|_| message.contains("duplicate entry")) {
                let message = format!("`{}` is given twice, first on line {first}", key.join("."));
                return Problem::new(at(Some(second)), message);
            }
            let line = error.location().map(|place| place.line());
            Problem::new(at(line), format!("not valid YAML: {}", error::without_place(&message)))
        };
        let mut value: serde_yaml::Value = serde_yaml::from_str(file.text).map_err(syntax)?;
        value.apply_merge().map_err(syntax)?;
        let value = merge::to_json(value, "this file").map_err(|message| Problem::new(at(None), message))?;
        // A file of comments only changes nothing.
        let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
        Ok(Self { path, value, lines: lines::Lines::scan(file.text) })
    }

    fn at(&self, path: &[String]) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.lines.find(path) }
    }
}
