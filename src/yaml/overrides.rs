//! `--set a.b=value`.

use serde_json::{Map, Value};

use super::error::{Origin, Problem, without_place};
use super::merge;

/// One `--set`, parsed.
pub(super) struct Override {
    pub text: String,
    pub path: Vec<String>,
    value: Value,
}

impl Override {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let problem = |message: String| Problem::new(Origin::Set(text.to_owned()), message);
        let Some((key, value)) = text.split_once('=') else {
            return Err(problem("expected `key=value`, as in `--set train_data.sample_size=256`".into()));
        };
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(problem(format!("`{key}` is not a dotted key")));
        }
        let not_yaml =
            |e: serde_yaml::Error| problem(format!("the value is not valid YAML: {}", without_place(&e.to_string())));
        let value: serde_yaml::Value = serde_yaml::from_str(value).map_err(not_yaml)?;
        let value = merge::to_json(value, "the value").map_err(problem)?;
        Ok(Self { text: text.to_owned(), path, value })
    }

    /// Puts the value into the tree, making the sections on the way.
    pub fn apply(&self, root: &mut Value, replaced: &[&str]) -> Result<(), Problem> {
        let mut place = root;
        for (depth, key) in self.path.iter().enumerate() {
            let above = self.path[..depth].join(".");
            place =
                step(place, key, &above).map_err(|message| Problem::new(Origin::Set(self.text.clone()), message))?;
        }
        merge::overlay(place, self.value.clone(), &mut self.path.clone(), replaced);
        Ok(())
    }
}

/// The place of `key` in `section`, whose own dotted key is `above`.
fn step<'v>(section: &'v mut Value, key: &str, above: &str) -> Result<&'v mut Value, String> {
    if section.is_null() {
        *section = Value::Object(Map::new());
    }
    match section {
        Value::Object(object) => Ok(object.entry(key).or_insert(Value::Null)),
        Value::Array(items) => {
            let length = items.len();
            let index = key
                .parse::<usize>()
                .map_err(|_| format!("`{above}` is a list: expected a number after it, found `{key}`"))?;
            items
                .get_mut(index)
                .ok_or_else(|| format!("`{above}` has {length} entries, counted from 0: there is no {index}"))
        }
        other => Err(format!("`{above}` is {other}, which has no key `{key}`")),
    }
}
