//! Which server is sent what, and what its refusals mean.

use std::fs;
use std::path::Path;

use super::{Bench, large};

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_storage() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).state().token = Some("hf_secret".into());
    let text = bench.why("hf:someone/motion/mm.ckpt");
    assert!(text.contains("(401): no token was sent") && text.contains("set HF_TOKEN"), "{text}");

    let with = |token: &str| bench.hub(|settings| settings.token = Some(token.into()));
    let name = Path::new("hf:someone/motion/mm.ckpt");
    let text = with("hf_old").local(name).unwrap_err().to_string();
    assert!(text.contains("(403): the token in HF_TOKEN") && !text.contains("hf_old"), "{text}");

    bench.server.take_requests();
    with("hf_secret").local(name).unwrap();
    let (storage, hub): (Vec<_>, Vec<_>) = bench.server.take_requests().into_iter().partition(|r| r.cdn);
    assert!(!storage.is_empty() && storage.iter().all(|request| request.authorization.is_none()));
    assert!(hub.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).put("config.json", b"{}", false).state().former =
        Some("old/name".into());
    bench.server.state().token = Some("hf_secret".into());
    let hub = bench.hub(|settings| settings.token = Some("hf_secret".into()));
    for (file, bytes) in [("mm.ckpt", large()), ("config.json", b"{}".to_vec())] {
        let name = format!("hf:old/name/{file}");
        assert_eq!(fs::read(hub.local(Path::new(&name)).unwrap()).unwrap(), bytes);
    }
}

#[test]
fn what_is_missing_is_named() {
    let bench = Bench::new();
    bench.server.put("v1/mm_sd_v15.ckpt", b"a", true);
    assert!(bench.why("hf:someone/else").contains("has no model repository `someone/else`"));
    assert!(bench.why("hf:someone/motion@v9").contains("`someone/motion` has no revision `v9`"));
    let text = bench.why("hf:someone/motion/mm_sd_v15.ckpt");
    assert!(text.contains("no file or folder `mm_sd_v15.ckpt`; did you mean `v1/mm_sd_v15.ckpt`?"), "{text}");
    let text = bench.why("hf:someone/motion/zzzzzzzzzzzzzzzz");
    assert!(text.ends_with("`zzzzzzzzzzzzzzzz`"), "nothing is like it: {text}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let bench = Bench::new();
    let hub = bench.hub(|settings| settings.endpoint = "http://127.0.0.1:1".into());
    let text = hub.local(Path::new("hf:o/r")).unwrap_err().to_string();
    assert!(text.starts_with("127.0.0.1:1 does not answer: "), "{text}");
    assert!(text.contains("HF_ENDPOINT") && text.contains("HF_HUB_OFFLINE=1"), "{text}");
}

#[test]
fn a_redirect_to_another_host_loses_the_token() {
    let bench = Bench::new();
    bench.server.put("config.json", b"{}", false).state().former = Some("old/name".into());
    bench.server.state().former_leads_to = Some(bench.server.endpoint().replace("127.0.0.1", "LOCALHOST"));
    // Whether the file was found, and whether all requests that were redirected carried the token.
    let get = |host: &str| {
        let endpoint = bench.server.endpoint().replace("127.0.0.1", host);
        let hub = bench.hub(|settings| (settings.endpoint, settings.token) = (endpoint, Some("hf_secret".into())));
        let found = hub.local(Path::new("hf:old/name/config.json")).is_ok();
        let sent = bench.server.take_requests().into_iter().filter(|request| !request.path.contains("old/name"));
        let tokens: Vec<bool> = sent.map(|request| request.authorization.is_some()).collect();
        (found, tokens)
    };
    assert_eq!(get("127.0.0.1"), (false, vec![false]), "and the file's hash is taken from the hub alone");
    assert_eq!(get("localhost"), (true, vec![true; 3]));
}

#[test]
fn paths_are_escaped_in_addresses() {
    let bench = Bench::new();
    bench.server.put("a b/ü#1?.bin", b"odd", false);
    let path = bench.get("hf:someone/motion/a b/ü#1?.bin").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"odd");
    assert!(path.ends_with("a b/ü#1?.bin"));
    let sent = bench.server.take_requests();
    assert!(sent.last().unwrap().path.ends_with("/a%20b/%C3%BC%231%3F.bin"), "{sent:?}");
}
