//! What the cache holds after a download, and what is answered from it alone.

use std::fs;
use std::path::Path;

use super::{Bench, COMMIT, large};

#[test]
fn what_is_no_hub_name_is_left_alone() {
    let bench = Bench::new();
    assert_eq!(bench.get("/models/hf:x").unwrap(), Path::new("/models/hf:x"));
    assert!(bench.server.take_requests().is_empty());
}

#[test]
fn a_file_is_downloaded_once_into_the_usual_layout() {
    let bench = Bench::new();
    bench.server.put("config.json", b"{}", false).put("v1/mm.ckpt", &large(), true);
    let path = bench.get("hf:someone/motion/v1/mm.ckpt").unwrap();
    assert_eq!(path, bench.folder().join("snapshots").join(COMMIT).join("v1/mm.ckpt"));
    assert_eq!(fs::read(&path).unwrap(), large());
    let etag = bench.server.state().files["v1/mm.ckpt"].etag();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../../blobs").join(&etag));
    assert_eq!(fs::read_to_string(bench.folder().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(bench.blobs(), [etag]);

    bench.server.take_requests();
    assert_eq!(bench.get("hf:someone/motion/v1/mm.ckpt").unwrap(), path);
    assert!(bench.server.take_requests().is_empty(), "the cache is enough");
    assert_eq!(fs::read(bench.get("hf:someone/motion/config.json").unwrap()).unwrap(), b"{}");
}

#[test]
fn a_revision_has_its_own_snapshot() {
    let bench = Bench::new();
    let other = "f".repeat(40);
    bench.server.put("a.bin", b"a", true).state().revisions.insert("refs/pr/1".into(), other.clone());
    bench.server.state().revisions.insert(other.clone(), other.clone());
    let path = bench.get("hf:someone/motion@refs%2Fpr%2F1/a.bin").unwrap();
    assert_eq!(path, bench.folder().join("snapshots").join(&other).join("a.bin"));
    assert_eq!(fs::read_to_string(bench.folder().join("refs/refs/pr/1")).unwrap(), other);
    let pinned = bench.get(&format!("hf:someone/motion@{COMMIT}/a.bin")).unwrap();
    assert_eq!(pinned, bench.folder().join("snapshots").join(COMMIT).join("a.bin"));
    assert!(!bench.folder().join("refs").join(COMMIT).exists(), "a commit needs no ref");
}

#[test]
fn offline_uses_the_cache_and_contacts_nobody() {
    let bench = Bench::new();
    bench.server.put("a.bin", b"a", true).put("b.bin", b"b", true);
    let text = bench.offline("hf:someone/motion/a.bin").unwrap_err().to_string();
    assert!(text.contains("revision `main` of `someone/motion` is not in the cache"), "{text}");
    assert!(text.contains("HF_HUB_OFFLINE forbids"), "{text}");
    let path = bench.get("hf:someone/motion/a.bin").unwrap();
    bench.server.take_requests();
    assert_eq!(bench.offline("hf:someone/motion/a.bin").unwrap(), path);
    for file in ["b.bin", "c.bin"] {
        let text = bench.offline(&format!("hf:someone/motion/{file}")).unwrap_err().to_string();
        assert!(text.contains(&format!("`{file}` is not in the cache")), "{text}");
    }
    assert!(bench.server.take_requests().is_empty());
}

#[test]
fn a_cache_that_another_program_filled_serves_offline() {
    let bench = Bench::new();
    let snapshot = bench.folder().join("snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("unet")).unwrap();
    fs::create_dir_all(bench.folder().join("refs")).unwrap();
    fs::write(bench.folder().join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("model_index.json"), "{}").unwrap();
    fs::write(snapshot.join("unet/diffusion_pytorch_model.safetensors"), "x").unwrap();
    assert_eq!(bench.offline("hf:someone/motion").unwrap(), snapshot);
    assert_eq!(bench.offline("hf:someone/motion/unet").unwrap(), snapshot.join("unet"));
}
