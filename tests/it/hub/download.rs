//! Downloads that break, and bytes that are not those announced.

use std::fs;
use std::sync::Mutex;

use animatediff::hub::{HubError, Progress, on_progress};

use super::server::Fault;
use super::{Bench, large};

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    for size in [true, false] {
        let bench = Bench::new();
        bench.server.put("mm.ckpt", &large(), size);
        bench.server.state().faults.extend([Fault::Cut(30_000), Fault::Status(503), Fault::Cut(20_000)]);
        assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large());
        let sent = bench.server.take_requests();
        let carrying = sent.iter().filter(|request| request.method == "GET" && request.cdn == size);
        let ranges: Vec<_> = carrying.filter(|r| !r.path.contains("/api/")).map(|r| r.range.as_deref()).collect();
        assert_eq!(ranges, [None, Some("bytes=30000-"), Some("bytes=30000-"), Some("bytes=50000-")]);
    }
}

#[test]
fn a_download_given_up_is_resumed_by_the_next_call() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).state().always = Some(Fault::Cut(1000));
    let text = bench.why("hf:someone/motion/mm.ckpt");
    assert!(text.contains("mm.ckpt: the connection broke after 5000 of 100000 bytes"), "{text}");
    assert!(text.contains("given up after 5 attempts. The bytes that arrived are kept"), "{text}");
    assert!(!bench.folder().join("refs/main").exists());

    bench.server.state().always = None;
    bench.server.take_requests();
    assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large());
    let sent = bench.server.take_requests();
    assert_eq!(sent.last().unwrap().range.as_deref(), Some("bytes=5000-"));
}

#[test]
fn a_server_that_ignores_ranges_sends_all_again() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).state().ignore_range = true;
    bench.server.state().faults.push_back(Fault::Cut(30_000));
    assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large());
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    for large_file in [true, false] {
        let bench = Bench::new();
        bench.server.put("mm.ckpt", &large(), large_file).state().faults.push_back(Fault::WrongByte);
        let error = bench.get("hf:someone/motion/mm.ckpt").unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&bench.server.state().files["mm.ckpt"].etag()), "{error}");
        assert!(bench.blobs().is_empty() && !bench.folder().join("snapshots").exists());
        assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large());
    }
}

#[test]
fn bytes_that_stay_wrong_are_never_kept() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).state().always = Some(Fault::WrongByte);
    for _ in 0..2 {
        let text = bench.why("hf:someone/motion/mm.ckpt");
        assert!(text.contains("Nothing was kept, run again; if it repeats, the server's copy is damaged"), "{text}");
        assert!(bench.blobs().is_empty());
    }
}

#[test]
fn a_wrong_length_is_refused() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true).state().always = Some(Fault::TooLong);
    let text = bench.why("hf:someone/motion/mm.ckpt");
    assert!(text.contains("expected 100000 bytes, found 100001 bytes"), "{text}");
    assert!(bench.blobs().is_empty());
}

// A process killed after the last byte and before the check leaves such a file.
#[test]
fn a_full_but_unchecked_file_is_checked_and_not_trusted() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true);
    let etag = bench.server.state().files["mm.ckpt"].etag();
    let part = bench.folder().join(format!("blobs/{etag}.incomplete"));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![0; 100_000]).unwrap();
    assert!(matches!(bench.get("hf:someone/motion/mm.ckpt"), Err(HubError::Damaged { .. })));

    fs::write(&part, large()).unwrap();
    bench.server.take_requests();
    assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large());
    assert!(bench.server.take_requests().iter().all(|request| !request.cdn), "no byte is sent again");
}

#[test]
fn an_empty_file_is_a_file() {
    let bench = Bench::new();
    bench.server.put("empty.txt", b"", false);
    assert_eq!(fs::read(bench.get("hf:someone/motion/empty.txt").unwrap()).unwrap(), b"");
}

#[test]
fn many_at_once_download_one_file_once() {
    let bench = Bench::new();
    bench.server.put("mm.ckpt", &large(), true);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(fs::read(bench.get("hf:someone/motion/mm.ckpt").unwrap()).unwrap(), large()));
        }
    });
    assert_eq!(bench.server.take_requests().iter().filter(|request| request.cdn).count(), 1);
}

static STEPS: Mutex<Vec<(String, u64, u64)>> = Mutex::new(Vec::new());

#[test]
fn a_download_is_reported_with_what_it_resumes() {
    on_progress(|step| match step {
        Progress::Begin { file, bytes, resumed } => STEPS.lock().unwrap().push((file.to_owned(), bytes, resumed)),
        Progress::Wait { .. } | Progress::Advance(_) | Progress::End => {}
    });
    let bench = Bench::new();
    bench.server.put("reported.ckpt", &large(), true).state().faults.push_back(Fault::Cut(30_000));
    bench.get("hf:someone/motion/reported.ckpt").unwrap();
    // Other tests of this process are reported too.
    let steps = STEPS.lock().unwrap().clone().into_iter().filter(|step| step.0 == "reported.ckpt");
    let begun: Vec<_> = steps.map(|(_, bytes, resumed)| (bytes, resumed)).collect();
    assert_eq!(begun, [(100_000, 0), (100_000, 30_000)]);
}

// Expected values: `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`.
#[test]
fn hashes_are_those_of_sha256sum_and_git() {
    let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let git = "ce013625030ba8dba906f756967f9e9ca394464a";
    for (large, digits) in [(true, sha256), (false, git)] {
        for etag in [digits.to_uppercase(), format!("\"{digits}\""), format!("W/\"{digits}\"")] {
            let bench = Bench::new();
            bench.server.put("hello.txt", b"hello\n", large).state().etag = Some(etag);
            bench.get("hf:someone/motion/hello.txt").unwrap();
            assert_eq!(bench.blobs(), [digits]);
        }
    }
}

#[test]
fn a_file_without_a_known_hash_is_refused() {
    let letters = "g".repeat(40);
    for etag in ["", "\"abc-1\"", "../../../../../../../../../../../etc/xx", &letters] {
        let bench = Bench::new();
        bench.server.put("hello.txt", b"hello\n", true).state().etag = Some(etag.into());
        let text = bench.why("hf:someone/motion/hello.txt");
        assert!(text.contains("the answer gives no hash of the file (ETag)"), "{text}");
        assert!(bench.blobs().is_empty());
    }
}

#[test]
fn the_range_that_is_sent_is_read() {
    for (range, refusal) in [
        ("bytes 30000-99999/100000", None),
        ("bytes 30000-99999/*", None),
        ("bytes 29999-99999/100000", Some("asked for the bytes from 30000 on and sends `Content-Range: bytes 29999-")),
        ("bytes */100000", Some("sends `Content-Range: bytes */100000`")),
        ("", Some("sends `Content-Range: `")),
        ("bytes 30000-99999/100001", Some("expected 100000 bytes, found 100001 bytes")),
    ] {
        let bench = Bench::new();
        bench.server.put("mm.ckpt", &large(), true).state().content_range = Some(range.into());
        bench.server.state().faults.push_back(Fault::Cut(30_000));
        match (bench.get("hf:someone/motion/mm.ckpt"), refusal) {
            (Ok(path), None) => assert_eq!(fs::read(path).unwrap(), large()),
            (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{range}: {error}"),
            (found, _) => panic!("{range}: {found:?}"),
        }
    }
}
