//! serde's messages in words for people who do not know Rust's types.

/// Rewrites `invalid type: string "x", expected f64` and its like; other messages stay as they are.
pub(super) fn rephrase(message: &str) -> String {
    for start in ["invalid type: ", "invalid value: "] {
        let Some((found, expected)) = message.strip_prefix(start).and_then(|rest| rest.rsplit_once(", expected "))
        else {
            continue;
        };
        return format!("expected {}, found {}{}", expectation(expected), finding(found), advice(found, expected));
    }
    message.to_owned()
}

/// The two halves of `unknown field` and `unknown variant` messages: the word, and the ones that are valid.
pub(super) fn unknown_word<'m>(message: &'m str, what: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let rest = message.strip_prefix("unknown ")?.strip_prefix(what)?.strip_prefix(" `")?;
    let (word, rest) = rest.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

fn expectation(expected: &str) -> String {
    match expected {
        "f32" | "f64" => "a number".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "string" | "path string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a section of keys".to_owned(),
        other if other.starts_with("struct") => "a section of keys".to_owned(),
        other if other.starts_with("enum ") || other == "string or map" => "one of its words".to_owned(),
        other => other.strip_prefix("a nonzero ").map_or(other.to_owned(), |_| "a whole number from 1 up".to_owned()),
    }
}

fn finding(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    match found {
        "null" | "unit value" | "Option value" => "nothing (null)".to_owned(),
        "map" => "a section of keys".to_owned(),
        "sequence" => "a list".to_owned(),
        other => other.split('`').nth(1).unwrap_or(other).to_owned(),
    }
}

/// YAML's two traps: words that other readers take for booleans, and numbers in quotes.
fn advice(found: &str, expected: &str) -> &'static str {
    let Some(text) = found.strip_prefix("string ").map(|text| text.trim_matches('"')) else { return "" };
    if expected == "a boolean" && ["yes", "no", "on", "off"].contains(&text.to_lowercase().as_str()) {
        return "; YAML 1.2 has only true and false";
    }
    let number =
        expected.len() <= 5 && expected.trim_start_matches(['i', 'u', 'f']).starts_with(['1', '3', '6', '8', 's']);
    if number && text.parse::<f64>().is_ok() { "; take the quotes away" } else { "" }
}
