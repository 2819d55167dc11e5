//! Token ids of transformers' fast CLIP tokenizer.

use std::{fs, path::Path};

use animatediff::tokenizer::Tokenizer;

use crate::support::golden_path;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<i64>,
}

#[test]
fn vocabulary_and_merges_give_the_golden_ids() {
    check(&["vocab.json", "merges.txt"]);
}

#[test]
fn tokenizer_json_gives_the_golden_ids() {
    check(&["tokenizer.json"]);
}

/// All cases, through a folder that holds only `files`.
fn check(files: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(golden_path("base/tokenizer").join(file), dir.path().join(file)).unwrap();
    }
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let cases = cases();
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    for Case { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text), ids, "{text:?} through {files:?}");
    }
}

#[test]
fn dropped_tokens_are_those_beyond_the_77() {
    let tokenizer = Tokenizer::open(&golden_path("base/tokenizer")).unwrap();
    for (words, dropped) in [(0, 0), (75, 0), (76, 1), (100, 25)] {
        assert_eq!(tokenizer.dropped_tokens(&"a ".repeat(words)), dropped, "{words} words");
    }
}

#[test]
fn a_prompt_is_as_long_as_the_folder_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden_path("base/tokenizer/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let config = dir.path().join("tokenizer_config.json");
    for (told, length) in [(r#"{"model_max_length": 32}"#, 32), (r#"{"model_max_length": 1e30}"#, 77), ("{}", 77)] {
        fs::write(&config, told).unwrap();
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("a ").len(), length, "{told}");
        assert_eq!(tokenizer.dropped_tokens(&"a ".repeat(80)), 82 - length, "{told}");
    }
    fs::write(&config, r#"{"model_max_length": "long"}"#).unwrap();
    let message = Tokenizer::open(dir.path()).err().unwrap().to_string();
    let expected = r#"not a CLIP tokenizer: `model_max_length: "long"`: a whole number of 3 or more is expected"#;
    assert_eq!(message, format!("{}: {expected}", config.display()));
}

#[test]
fn a_folder_without_a_tokenizer_is_named() {
    let message = Tokenizer::open(Path::new("/nowhere")).err().unwrap().to_string();
    assert_eq!(message, "/nowhere: no tokenizer here: expected vocab.json with merges.txt, or tokenizer.json");
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&fs::read_to_string(golden_path("tokenizer_cases.json")).unwrap()).unwrap()
}
