//! The environment variables of the hub's own tools.

use std::fs;
use std::path::Path;

use animatediff::hub::{Hub, HubError, Settings};

use super::Bench;

fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
    let get = |name: &str| variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
    Settings::from_variables(&get, Some("/home/u".into()))
}

#[test]
fn the_cache_is_where_the_hubs_tools_have_it() {
    let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
    assert_eq!(cache(&[]), Path::new("/home/u/.cache/huggingface/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]), Path::new("/h/hub"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    let homeless = Settings::from_variables(&|_| None, None).err().unwrap().to_string();
    assert!(homeless.contains("HF_HOME: it is not set"), "{homeless}");
}

#[test]
fn the_variable_wins_over_the_stored_token() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_stored\n").unwrap();
    let home = home.path().to_str().unwrap();
    let token = |variables: &[(&str, &str)]| settings(variables).unwrap().token;
    assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_stored"));
    assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_CACHE", "/c")]).as_deref(), Some("hf_stored"));
    assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_env\n")]).as_deref(), Some("hf_env"));
}

#[test]
fn unusable_values_are_named() {
    let why = |name, value| settings(&[(name, value)]).err().unwrap().to_string();
    assert!(why("HF_ENDPOINT", "hf-mirror.com").starts_with("HF_ENDPOINT: `hf-mirror.com` is no address"));
    assert!(why("HF_TOKEN", "hf_a b").starts_with("HF_TOKEN: "));
    assert!(!why("HF_TOKEN", "hf_a b").contains("hf_a b"), "a token is not printed");
    assert_eq!(settings(&[("HF_ENDPOINT", "http://m/")]).unwrap().endpoint, "http://m");
    assert!(settings(&[("HF_HUB_OFFLINE", "True")]).unwrap().offline);
    assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let bench = Bench::new();
    let why = |path: &Path| {
        let certificates = Some(path.to_owned());
        Hub::new(Settings { certificates, ..bench.settings() }).err().unwrap().to_string()
    };
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(why(empty.path()).contains("there is no certificate in it; expected a file of certificates"));
    assert!(why(Path::new("/no/such.pem")).starts_with("SSL_CERT_FILE: /no/such.pem: No such file"));
}
