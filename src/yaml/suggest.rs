//! The key that was probably meant.

use serde_json::Value;

/// As many keys as a hint may list.
const LISTED: usize = 16;

/// A hint for the unknown key `wrong` in a section that takes `valid`; `defaults` show where else such a key exists.
pub(super) fn hint(section: &[String], wrong: &str, valid: &[&str], defaults: &Value) -> String {
    if let Some(near) = nearest(wrong, valid) {
        return format!("did you mean `{}`?", dotted(section, near));
    }
    if let Some(elsewhere) = find(defaults, wrong, &mut Vec::new()) {
        return format!("did you mean `{elsewhere}`?");
    }
    match valid {
        [] => "nothing is known here".to_owned(),
        some if some.len() <= LISTED => format!("known here: {}", some.join(", ")),
        many => format!("known here: {}, and {} more", many[..LISTED].join(", "), many.len() - LISTED),
    }
}

/// The valid word nearest to `wrong`, if any is near enough to be a slip.
pub(super) fn nearest<'v>(wrong: &str, valid: &[&'v str]) -> Option<&'v str> {
    let plain = wrong.to_lowercase().replace('-', "_");
    let distance = |word: &&&str| strsim::damerau_levenshtein(&plain, &word.to_lowercase());
    let near = valid.iter().min_by_key(distance)?;
    (distance(&near) <= (plain.chars().count() / 3).max(1)).then_some(*near)
}

/// A key with its section before it.
pub(super) fn dotted(section: &[String], key: &str) -> String {
    section.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".")
}

fn find(value: &Value, key: &str, path: &mut Vec<String>) -> Option<String> {
    for (name, below) in value.as_object()? {
        if name == key {
            return Some(dotted(path, name));
        }
        path.push(name.clone());
        let found = find(below, key, path);
        path.pop();
        if found.is_some() {
            return found;
        }
    }
    None
}
