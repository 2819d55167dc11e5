//! The written form of a hub name.

use animatediff::hub::{HubError, Name, is_name};

use super::Bench;

fn why(text: &str) -> String {
    text.parse::<Name>().unwrap_err().to_string()
}

#[test]
fn names_are_read_and_written_back() {
    for text in ["hf:o/r", "hf:o/r@v1.0", "hf:o/r/a/b.bin", "hf:o/r@refs%2Fpr%2F1/x@y", "hf:o-1/r_2.x@main/unet"] {
        assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        assert!(is_name(text.as_ref()));
    }
    let name: Name = "hf:o/r@refs%2Fpr%2F1/unet/".parse().unwrap();
    assert_eq!((name.revision(), name.path.as_deref()), ("refs/pr/1", Some("unet")));
    assert_eq!("hf:o/r/".parse::<Name>().unwrap().path, None);
}

#[test]
fn a_bad_name_says_what_is_wrong_with_it() {
    assert!(why("o/r").contains("does not start with `hf:`"));
    assert!(why("hf:gpt2").contains("between owner and repository"));
    assert!(why("hf:/r").contains("owner is empty"));
    assert!(why("hf:o/").contains("repository is empty"));
    assert!(why("hf:o/r@").contains("revision after `@` is empty"));
    assert!(why("hf:o/r@a b").contains("no branch"));
    assert!(why("hf:o/r@..").contains("no branch"));
    assert!(why("hf:o/r r").contains("contains ` `"));
    assert!(why("hf:../r").contains("starts with `.`"));
}

#[test]
fn a_path_cannot_leave_the_repository() {
    for path in ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\\b"] {
        assert!(why(&format!("hf:o/r/{path}")).contains("leaves the repository"), "{path}");
    }
}

#[test]
fn a_path_out_of_the_repository_is_refused_before_anything_else() {
    let bench = Bench::new();
    assert!(matches!(bench.get("hf:someone/motion/../../x"), Err(HubError::Name { .. })));
    bench.server.put("../x", b"a", false);
    let text = bench.get("hf:someone/motion").unwrap_err().to_string();
    assert!(text.contains("the answer names a file outside the repository, `../x`"), "{text}");
}
