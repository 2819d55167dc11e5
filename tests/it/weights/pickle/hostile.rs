//! Files cut short, and small programs that ask for much: all end soon, with a message. Damage at random is in
//! `weights/hostile.rs`.

use std::time::{Duration, Instant};

use animatediff::weights::pickle::{PickleError, read};

use super::{bombs::bombs, fixture, zip};

#[test]
fn every_truncation_is_refused() {
    let file = fixture("module2.pt");
    for length in 0..file.len() {
        let message = read(&file[..length]).unwrap_err().to_string();
        assert!(message.len() < 2000, "{length}: {message}");
    }
}

#[test]
fn bombs_end() {
    for (name, bomb) in bombs(1 << 20) {
        let started = Instant::now();
        let result = read(&zip::wrap(&bomb));
        let harmless = matches!(name, "latin text" | "digits");
        assert!(harmless == result.is_ok(), "{name}: {result:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    }
}

#[test]
fn endless_trees_meet_a_limit() {
    for (name, bomb) in bombs(1000) {
        if name.contains("doubling") || name.contains("in itself") {
            assert!(matches!(read(&zip::wrap(&bomb)), Err(PickleError::Limit { .. })), "{name}");
        }
    }
}
