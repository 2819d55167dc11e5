//! From the merged tree to the type, with every mistake on the way.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Segment, Track};

use super::error::{Problem, YamlError};
use super::{Stack, expectation, fields, merge, suggest};

/// More than this many wrong values are not collected in one load.
const ATTEMPTS: usize = 32;

/// serde stops at the first wrong value. It is then replaced by the default, or taken out, and reading starts over, until all of it
/// was seen. Unknown keys do not stop it.
pub(super) fn read<T: DeserializeOwned>(stack: &Stack<'_>) -> Result<T, YamlError> {
    let mut tree = stack.merged.clone();
    let mut found: Vec<(Vec<String>, Problem)> = Vec::new();
    let mut mended: Vec<Vec<String>> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut unknown = Vec::new();
        let result = attempt::<T>(&tree, &mut unknown);
        for path in unknown {
            if !found.iter().any(|(known, _)| *known == path) {
                let problem = unknown_key::<T>(stack, &path);
                found.push((path, problem));
            }
        }
        let (path, message) = match result {
            Ok(config) => return YamlError::or(config, ordered(found)),
            Err(failure) => failure,
        };
        // Something that is missing because it was taken out before, or wrong in the same place again.
        if mended.iter().any(|earlier| earlier.starts_with(&path)) {
            break;
        }
        let (path, problem) = wrong_value(stack, path, &message);
        let again = mend(&mut tree, &stack.defaults, &path);
        mended.push(path.clone());
        found.push((path, problem));
        if !again {
            break;
        }
    }
    Err(YamlError { problems: ordered(found) })
}

type Failure = (Vec<String>, String);

/// One reading: unknown keys go to `unknown`, the first wrong value is the error, with its path.
fn attempt<T: DeserializeOwned>(tree: &Value, unknown: &mut Vec<Vec<String>>) -> Result<T, Failure> {
    if let Some(path) = list_for_section::<T>(tree, &mut Vec::new()) {
        return Err((path, "invalid type: sequence, expected struct".to_owned()));
    }
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(tree, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(ignored_path(&path));
    let result = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    result.map_err(|error| (tracked_path(&track.path()), error.to_string()))
}

/// serde takes a list for a struct, its entries for the keys in their order, which nobody means who writes YAML.
fn list_for_section<T: DeserializeOwned>(tree: &Value, path: &mut Vec<String>) -> Option<Vec<String>> {
    let entries: Vec<(String, &Value)> = match tree {
        Value::Array(_) if fields::at::<T>(path).is_some() => return Some(path.clone()),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        _ => return None,
    };
    entries.into_iter().find_map(|(key, value)| {
        path.push(key);
        let found = list_for_section::<T>(value, path);
        path.pop();
        found
    })
}

fn unknown_key<T: DeserializeOwned>(stack: &Stack<'_>, path: &[String]) -> Problem {
    let (wrong, section) = path.split_last().expect("an unknown key has a name");
    let valid = fields::at::<T>(section).unwrap_or_default();
    unknown_in(stack, section, wrong, valid)
}

fn unknown_in(stack: &Stack<'_>, section: &[String], wrong: &str, valid: &[&str]) -> Problem {
    let path: Vec<String> = section.iter().cloned().chain([wrong.to_owned()]).collect();
    let hint = suggest::hint(section, wrong, valid, &stack.defaults);
    Problem::new(stack.origin(&path), format!("unknown key `{}`; {hint}", path.join(".")))
}

/// Words for serde's message, and the path that is really meant: types that refuse unknown keys themselves name the section.
fn wrong_value(stack: &Stack<'_>, path: Vec<String>, message: &str) -> (Vec<String>, Problem) {
    if let Some((wrong, valid)) = expectation::unknown_word(message, "field") {
        let problem = unknown_in(stack, &path, wrong, &valid);
        return (path.into_iter().chain([wrong.to_owned()]).collect(), problem);
    }
    let key = if path.is_empty() { "the whole".to_owned() } else { format!("`{}`", path.join(".")) };
    let text = if let Some((wrong, valid)) = expectation::unknown_word(message, "variant") {
        let near = suggest::nearest(wrong, &valid).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        format!("{key}: expected one of {}, found `{wrong}`{near}", valid.join(", "))
    } else if let Some(missing) = message.strip_prefix("missing field ") {
        format!("the key `{}` is missing", suggest::dotted(&path, missing.trim_matches('`')))
    } else {
        format!("{key}: {}", expectation::rephrase(message))
    };
    let problem = Problem::new(stack.origin(&path), text);
    (path, problem)
}

/// Puts the default in the place of a wrong value, or takes it out. False when there is nothing to change.
fn mend(tree: &mut Value, defaults: &Value, path: &[String]) -> bool {
    let Some((last, section)) = path.split_last() else { return false };
    let default = merge::get(defaults, path);
    match (merge::get_mut(tree, section), default) {
        (Some(Value::Object(object)), Some(default)) if object.get(last).is_some_and(|value| value != default) => {
            object.insert(last.clone(), default.clone());
            true
        }
        (Some(Value::Object(object)), _) => object.shift_remove(last).is_some(),
        (Some(Value::Array(items)), _) => {
            last.parse::<usize>().ok().filter(|&i| i < items.len()).map(|i| items.remove(i)).is_some()
        }
        _ => false,
    }
}

/// Those of the file by line, then the others.
fn ordered(found: Vec<(Vec<String>, Problem)>) -> Vec<Problem> {
    use super::Origin;
    let mut problems: Vec<Problem> = found.into_iter().map(|(_, problem)| problem).collect();
    problems.sort_by_key(|problem| match &problem.origin {
        Origin::File { line, .. } => line.unwrap_or(0),
        Origin::Set(_) | Origin::Defaults => usize::MAX,
    });
    problems
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    let (parent, key) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(index.to_string())),
        Path::Map { parent, key } => (parent, Some(key.clone())),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut keys = ignored_path(parent);
    keys.extend(key);
    keys
}

fn tracked_path(path: &serde_path_to_error::Path) -> Vec<String> {
    let key = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    };
    path.iter().filter_map(key).collect()
}
