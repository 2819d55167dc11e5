use std::fs;

use animatediff::train::metrics::{Metrics, read};
use serde_json::json;
use tempfile::tempdir;

use crate::child;

#[test]
fn resuming_drops_later_rows_and_a_torn_one() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut metrics = Metrics::create(&path).unwrap();
    for step in 1..=5 {
        metrics.append(step, &json!({"loss": 0.1 * step as f64, "lr": 1e-4})).unwrap();
    }
    drop(metrics);
    let whole = fs::read_to_string(&path).unwrap();
    assert!(whole.starts_with("{\"step\":1,\"loss\":0.1,\"lr\":0.0001}\n"), "{whole}");
    fs::write(&path, whole + "{\"step\":6,\"lo").unwrap();
    assert_eq!(read(&path).unwrap().len(), 5);
    let mut metrics = Metrics::resume(&path, 3).unwrap();
    assert!(metrics.append(3, &json!({})).unwrap_err().to_string().contains("a row of step 3 after one of step 3"));
    metrics.append(4, &json!({"loss": f64::NAN})).unwrap();
    let rows = read(&path).unwrap();
    assert_eq!(rows.iter().map(|row| row["step"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(rows[3]["loss"].is_null());
}

#[test]
fn a_spoiled_row_stops_resuming_and_is_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let text = "{\"step\":1}\nspoiled\n{\"step\":3}\n";
    fs::write(&path, text).unwrap();
    let message = Metrics::resume(&path, 3).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl:2: this is no row"), "{message}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_missing_file_starts_anew_and_an_existing_one_is_not_emptied() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    Metrics::resume(&path, 10).unwrap().append(11, &json!({})).unwrap();
    assert!(Metrics::create(&path).is_err());
    assert_eq!(read(&path).unwrap().len(), 1);
}

#[test]
fn a_row_that_does_not_fit_leaves_no_half() {
    if let Some(dir) = child::folder() {
        let mut metrics = Metrics::create(&dir.join("m")).unwrap();
        child::limit_file_size(64);
        metrics.append(1, &json!({"loss": 1})).unwrap();
        metrics.append(2, &json!({"text": "x".repeat(100)})).unwrap_err();
        metrics.append(3, &json!({"loss": 3})).unwrap();
        return;
    }
    let dir = tempdir().unwrap();
    assert!(child::spawn("metrics::a_row_that_does_not_fit_leaves_no_half", dir.path()).wait().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("m")).unwrap(), "{\"step\":1,\"loss\":1}\n{\"step\":3,\"loss\":3}\n");
}
