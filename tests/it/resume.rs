use std::{collections::BTreeMap, fs, path::Path};

use animatediff::train::{
    checkpoint::{Checkpoint, save},
    resume::{Point, Resume},
};
use serde_json::json;
use tempfile::tempdir;

/// A run's folder with a checkpoint of each of `steps`.
fn run(output_dir: &Path, folder: &str, steps: &[i64]) {
    let root = output_dir.join(folder);
    fs::create_dir_all(root.join("checkpoints")).unwrap();
    fs::write(root.join("config.yaml"), "{}").unwrap();
    for &step in steps {
        let checkpoint = Checkpoint { step, tensors: BTreeMap::new(), state: json!({}) };
        save(&root.join("checkpoints"), &checkpoint, None).unwrap();
    }
}

fn auto(output_dir: &Path, name: &str, debug: bool) -> Option<String> {
    let found: Option<Point> = Resume::Auto.find(output_dir, name, debug).unwrap();
    found.map(|point| {
        assert!(point.checkpoint.starts_with(&point.folder));
        point.checkpoint.strip_prefix(output_dir).unwrap().display().to_string()
    })
}

#[test]
fn the_newest_run_of_the_name_with_a_checkpoint_is_gone_on_with() {
    let dir = tempdir().unwrap();
    assert_eq!(auto(&dir.path().join("none"), "motion", false), None);
    run(dir.path(), "motion-2026-01-02T03-04-05", &[10, 20]);
    run(dir.path(), "motion-2026-01-02T03-04-05-2", &[5]);
    for other in
        ["motion-v2-2026-02-02T03-04-05", "emotion-2026-02-02T03-04-05", "motion-2026-13-02T03-04-05", "motion"]
    {
        run(dir.path(), other, &[99]);
    }
    let newest = Some("motion-2026-01-02T03-04-05-2/checkpoints/step-00000005".to_owned());
    assert_eq!(auto(dir.path(), "motion", false), newest);
    run(dir.path(), "motion-2026-03-02T03-04-05", &[]);
    assert_eq!(
        auto(dir.path(), "motion", false),
        newest,
        "what was killed before its first checkpoint has nothing to go on from"
    );
    run(dir.path(), "motion-2026-01-02T03-04-05-10", &[7]);
    assert_eq!(auto(dir.path(), "motion", false).unwrap(), "motion-2026-01-02T03-04-05-10/checkpoints/step-00000007");
    assert_eq!(auto(dir.path(), "motion", true), None);
    run(dir.path(), "debug", &[3]);
    assert_eq!(auto(dir.path(), "motion", true).unwrap(), "debug/checkpoints/step-00000003");
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_is_not_passed_over() {
    let dir = tempdir().unwrap();
    run(dir.path(), "motion-2026-01-02T03-04-05", &[10]);
    run(dir.path(), "motion-2026-01-03T03-04-05", &[10, 20]);
    let newer = dir.path().join("motion-2026-01-03T03-04-05/checkpoints");
    fs::remove_file(newer.join("step-00000020/state.json")).unwrap();
    let point = Resume::Auto.find(dir.path(), "motion", false).unwrap().unwrap();
    assert!(point.checkpoint.ends_with("motion-2026-01-03T03-04-05/checkpoints/step-00000010"));
    assert!(point.damaged.len() == 1 && point.damaged[0].contains("step-00000020/state.json"), "{:?}", point.damaged);
    fs::remove_file(newer.join("step-00000010/manifest.json")).unwrap();
    let message = format!("{:#}", Resume::Auto.find(dir.path(), "motion", false).unwrap_err());
    assert!(message.contains("all 2 checkpoints are damaged") && message.contains("state.json"), "{message}");
}

#[test]
fn words_and_paths() {
    let read = |text: &str| text.parse::<Resume>().unwrap();
    assert_eq!((read("never"), read("auto")), (Resume::Never, Resume::Auto));
    assert_eq!(read("./auto"), Resume::From("./auto".into()));
    let dir = tempdir().unwrap();
    run(dir.path(), "x", &[1]);
    assert_eq!(Resume::Never.find(dir.path(), "x", false).unwrap(), None);
    let (folder, checkpoint) = (dir.path().join("x"), dir.path().join("x/checkpoints/step-00000001"));
    for path in [&folder, &checkpoint] {
        let resume = Resume::From(path.clone());
        assert_eq!(resume.config().unwrap(), Some(folder.join("config.yaml")));
        let point = Point {
            folder: folder.clone(),
            checkpoint: checkpoint.clone(),
            named: path == &checkpoint,
            damaged: vec![],
        };
        assert_eq!(resume.find(Path::new("elsewhere"), "y", false).unwrap(), Some(point));
    }
    for missing in ["nowhere", "x/checkpoints/step-00000002", "x/checkpoints"] {
        let error = Resume::From(dir.path().join(missing)).find(dir.path(), "x", false).unwrap_err();
        assert!(error.to_string().contains("neither a run's folder"), "{missing}: {error}");
    }
}

#[test]
fn a_checkpoint_that_was_saved_meanwhile_is_found_unless_another_was_named() {
    let dir = tempdir().unwrap();
    let name = "motion-2026-01-02T03-04-05";
    run(dir.path(), name, &[10]);
    let chosen = Resume::Auto.find(dir.path(), "motion", false).unwrap().unwrap();
    let folder = dir.path().join(name);
    let asked =
        Resume::From(folder.join("checkpoints/step-00000010")).find(dir.path(), "motion", false).unwrap().unwrap();
    // Whoever wrote the run saves once more and rotates the older one out.
    run(dir.path(), name, &[20]);
    fs::remove_dir_all(&chosen.checkpoint).unwrap();
    assert_eq!(chosen.again().unwrap().checkpoint, folder.join("checkpoints/step-00000020"));
    assert_eq!(asked.again().unwrap(), asked, "what was named is what is meant, there or not");
    fs::remove_dir_all(folder.join("checkpoints/step-00000020")).unwrap();
    assert!(chosen.again().unwrap_err().to_string().contains("no complete checkpoint to resume from"));
}
