//! Trees of values: from YAML, over each other, and down a path.
//!
//! JSON's values carry the tree, because serde_yaml's take null for an empty section, which would hide a section whose keys were all
//! commented out.

use serde_json::{Map, Number, Value};

/// The tree without what configurations do not use: tags, keys that are no scalars, numbers that are not finite.
pub(super) fn to_json(value: serde_yaml::Value, place: &str) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => {
            Value::Number(to_number(&number).ok_or_else(|| format!("{number} in {place} is not finite"))?)
        }
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(|item| to_json(item, place)).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = to_key(&key).ok_or_else(|| format!("{place} has a key that is no word: {key:?}"))?;
                object.insert(key, to_json(value, place)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            return Err(format!("the tag {} in {place} means nothing in a configuration", tagged.tag));
        }
    })
}

fn to_number(number: &serde_yaml::Number) -> Option<Number> {
    let whole = number.as_u64().map(Number::from).or_else(|| number.as_i64().map(Number::from));
    whole.or_else(|| Number::from_f64(number.as_f64()?))
}

fn to_key(key: &serde_yaml::Value) -> Option<String> {
    use serde_yaml::Value as Yaml;
    match key {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Bool(flag) => Some(flag.to_string()),
        Yaml::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Lays `over` on `base`: mappings merge, except those whose dotted path is in `replaced`; everything else takes its place.
pub(super) fn overlay(base: &mut Value, over: Value, path: &mut Vec<String>, replaced: &[&str]) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) if !replaced.contains(&path.join(".").as_str()) => {
            for (key, value) in over {
                path.push(key.clone());
                overlay(base.entry(key).or_insert(Value::Null), value, path, replaced);
                path.pop();
            }
        }
        (base, over) => *base = over,
    }
}

/// The value at `path`; a number is a place in a list.
pub(super) fn get<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Object(object) => object.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// As [`get`], to change it.
pub(super) fn get_mut<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Object(object) => object.get_mut(key),
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}
