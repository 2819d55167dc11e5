use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use animatediff::files::disk::{self, Operation};
use animatediff::train::checkpoint::saver::Saver;
use animatediff::train::checkpoint::{Checkpoint, Keep, abandon_after, load, newest, newest_before, save};
use animatediff::weights::write::{dtype_of, kind_of, stream_safetensors, write_safetensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tempfile::tempdir;

use crate::child;

const KINDS: [Kind; 9] = [
    Kind::Bool,
    Kind::Uint8,
    Kind::Int8,
    Kind::Int16,
    Kind::Int64,
    Kind::Half,
    Kind::BFloat16,
    Kind::Float,
    Kind::Double,
];

fn example(step: i64) -> Checkpoint {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)) * 0.37 - 3.0 + step as f64;
    let trained = KINDS.iter().map(|&kind| (format!("up.{kind:?}"), base.to_kind(kind).view([2, 3, 4]))).collect();
    let odd = BTreeMap::from([
        ("strided".to_owned(), base.view([4, 6]).transpose(0, 1)),
        ("scalar".to_owned(), Tensor::from(f32::NAN)),
        ("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ("int".to_owned(), Tensor::from_slice(&[i32::MIN, i32::MAX])),
    ]);
    let tensors = BTreeMap::from([("trained".to_owned(), trained), ("adam".to_owned(), odd)]);
    Checkpoint {
        step,
        tensors,
        state: json!({"loss_scale": 65536.0, "ema": 0.1 + 0.2, "seed": u64::MAX, "third": 1.0 / 3.0}),
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

fn steps(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The newest so many, and no others.
fn last(last: usize) -> Keep {
    Keep { last, every: None, sound_before: 0 }
}

/// The newest complete checkpoint, and what is wrong with those after it.
fn found(dir: &Path) -> (PathBuf, Vec<String>) {
    let found = newest(dir).unwrap().unwrap();
    (found.path, found.damaged)
}

fn flip_last_byte(path: &Path) {
    let mut content = fs::read(path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(path, content).unwrap();
}

#[test]
fn everything_comes_back_bit_for_bit() {
    let dir = tempdir().unwrap();
    let saved = example(60);
    let path = save(dir.path(), &saved, None).unwrap();
    assert!(path.ends_with("step-00000060"));
    assert_eq!(steps(&path), ["adam.safetensors", "manifest.json", "state.json", "trained.safetensors"]);
    let loaded = load(&path).unwrap();
    assert_eq!((loaded.step, &loaded.state), (60, &saved.state));
    assert_eq!(loaded.tensors.keys().collect::<Vec<_>>(), saved.tensors.keys().collect::<Vec<_>>());
    for (stem, group) in &saved.tensors {
        assert_eq!(group.len(), loaded.tensors[stem].len());
        for (name, tensor) in group {
            let back = &loaded.tensors[stem][name];
            assert_eq!((back.kind(), back.size()), (tensor.kind(), tensor.size()), "{stem}/{name}");
            assert_eq!(bytes(back), bytes(tensor), "{stem}/{name}");
        }
    }
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_and_names_the_file() {
    for file in ["trained.safetensors", "state.json", "manifest.json"] {
        let dir = tempdir().unwrap();
        let first = save(dir.path(), &example(1), None).unwrap();
        let second = save(dir.path(), &example(2), None).unwrap();
        assert_eq!(found(dir.path()), (second.clone(), vec![]));
        flip_last_byte(&second.join(file));
        let message = format!("{:#}", load(&second).unwrap_err());
        assert!(message.contains(file), "{message}");
        let (fallback, damaged) = found(dir.path());
        assert_eq!(fallback, first);
        assert!(damaged.len() == 1 && damaged[0].contains(&second.join(file).display().to_string()), "{damaged:?}");
        fs::remove_file(first.join(file)).unwrap();
        let message = newest(dir.path()).unwrap_err().to_string();
        assert!(message.contains("all 2 checkpoints are damaged"), "{message}");
    }
}

#[test]
fn no_checkpoint_is_no_error() {
    let dir = tempdir().unwrap();
    assert!(newest(dir.path()).unwrap().is_none());
    assert!(newest(&dir.path().join("none")).unwrap().is_none());
}

#[test]
fn old_ones_rotate_out_and_leftovers_of_killed_runs_go() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join(".step-00000009.partial-1")).unwrap();
    fs::write(dir.path().join(".step-00000009.partial-1/trained.safetensors"), "half").unwrap();
    for step in [10, 20, 30, 40] {
        save(dir.path(), &example(step), Some(last(2))).unwrap();
    }
    assert_eq!(steps(dir.path()), ["step-00000030", "step-00000040"]);
    save(dir.path(), &example(40), Some(last(0))).unwrap();
    assert_eq!(steps(dir.path()), ["step-00000040"]);
    load(&dir.path().join("step-00000040")).unwrap();
}

#[test]
fn multiples_of_a_step_are_kept_for_ever() {
    let dir = tempdir().unwrap();
    for step in 1..=10 {
        save(dir.path(), &example(step), Some(Keep { every: Some(4), ..last(2) })).unwrap();
    }
    let kept = [4, 8, 9, 10].map(|step| format!("step-{step:08}"));
    assert_eq!(steps(dir.path()), kept);
}

#[test]
fn the_newest_whose_weights_are_known_to_be_sound_stays() {
    let dir = tempdir().unwrap();
    for (step, sound_before, kept) in
        [(1, 1, &[1][..]), (2, 2, &[1, 2]), (3, 3, &[2, 3]), (4, 3, &[2, 4]), (5, 3, &[2, 5]), (6, 6, &[5, 6])]
    {
        save(dir.path(), &example(step), Some(Keep { sound_before, ..last(1) })).unwrap();
        let kept: Vec<String> = kept.iter().map(|step| format!("step-{step:08}")).collect();
        assert_eq!(steps(dir.path()), kept, "step {step}, updated in {sound_before}");
    }
    assert!(newest_before(dir.path(), 6).unwrap().unwrap().ends_with("step-00000005"));
    fs::remove_file(dir.path().join("step-00000005/state.json")).unwrap();
    assert_eq!(newest_before(dir.path(), 6).unwrap(), None);
}

#[test]
fn what_a_checkpoint_needs_is_synced_before_it_has_its_name_and_only_then_older_ones_go() {
    let dir = tempdir().unwrap();
    save(dir.path(), &example(1), None).unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    let watching = disk::watch(move |operation, path| {
        log.borrow_mut().push((operation, path.file_name().unwrap().to_string_lossy().into_owned()));
        Ok(())
    });
    save(dir.path(), &example(2), Some(last(1))).unwrap();
    drop(watching);
    save(dir.path(), &example(3), None).unwrap();
    let mut seen: Vec<(Operation, String)> = seen.borrow().clone();
    seen.retain(|(operation, _)| !matches!(operation, Operation::Create | Operation::Write));
    let staged = |step: i64| format!(".step-{step:08}.partial-{}", std::process::id());
    // The four files in the order of the folder, whatever that is.
    let files: BTreeSet<_> = seen.drain(..4).collect();
    let expected = ["adam.safetensors", "manifest.json", "state.json", "trained.safetensors"];
    assert_eq!(files, expected.map(|name| (Operation::Sync, name.to_owned())).into());
    let parent = dir.path().file_name().unwrap().to_string_lossy().into_owned();
    let rest = [
        (Operation::Sync, staged(2)),
        (Operation::Rename, "step-00000002".to_owned()),
        (Operation::Sync, parent),
        (Operation::Rename, staged(1)),
        (Operation::Remove, staged(1)),
    ];
    assert_eq!(seen, rest);
}

#[test]
fn a_save_beside_the_training_is_of_what_was_then() {
    let dir = tempdir().unwrap();
    let mut saver = Saver::new(dir.path(), None);
    assert_eq!((saver.latest(), saver.wait().unwrap().is_none()), (None, true));
    let training = example(1);
    let mut shared = training.tensors["trained"]["up.Float"].shallow_clone();
    for step in 1..=3 {
        let tensors = [("trained".to_owned(), [("w".to_owned(), shared.shallow_clone())].into())].into();
        let before = saver.begin(Checkpoint { step, tensors, state: json!({}) }, last(3), || Ok(())).unwrap();
        let _ = shared.fill_(-(step as f64));
        assert_eq!(before.map(|saved| saved.step), (step > 1).then(|| step - 1), "the one before was waited for");
        assert_eq!(saver.latest(), Some(step));
    }
    let saved = saver.wait().unwrap().unwrap();
    assert!(saved.step == 3 && saved.path.ends_with("step-00000003") && saved.took.as_nanos() > 0);
    for (step, expected) in
        [(1, &example(1).tensors["trained"]["up.Float"]), (2, &Tensor::from(-1f32)), (3, &Tensor::from(-2f32))]
    {
        let loaded = load(&dir.path().join(format!("step-{step:08}"))).unwrap();
        assert_eq!(loaded.tensors["trained"]["w"], expected.expand([2, 3, 4], false), "step {step}");
    }
}

#[test]
fn a_save_that_was_begun_is_finished_and_one_that_fails_is_an_error() {
    let dir = tempdir().unwrap();
    let mut saver = Saver::new(dir.path(), None);
    saver.begin(example(1), last(3), || Ok(())).unwrap();
    drop(saver);
    assert_eq!(steps(dir.path()), ["step-00000001"]);
    let mut saver = Saver::new(dir.path(), Some(1));
    saver.begin(example(2), last(3), || anyhow::bail!("the rows are not on the disk")).unwrap();
    let message = loop {
        match saver.poll() {
            Ok(None) => std::thread::yield_now(),
            ended => break ended.unwrap_err().to_string(),
        }
    };
    assert_eq!((message.as_str(), saver.latest()), ("the rows are not on the disk", Some(1)));
    saver.begin(example(3), last(3), || panic!("out of {}", "memory")).unwrap();
    let message = saver.begin(example(4), last(3), || Ok(())).unwrap_err().to_string();
    assert_eq!(message, "the checkpoint of step 3 was not saved: out of memory");
    saver.begin(example(5), last(3), || Ok(())).unwrap();
    assert_eq!(saver.wait().unwrap().unwrap().step, 5);
    assert_eq!(steps(dir.path()), ["step-00000001", "step-00000005"]);
}

#[test]
fn later_checkpoints_are_set_aside_when_a_run_goes_back() {
    let dir = tempdir().unwrap();
    for step in [10, 20, 30] {
        save(dir.path(), &example(step), None).unwrap();
    }
    assert_eq!(abandon_after(dir.path(), 10).unwrap().len(), 2);
    assert!(found(dir.path()).0.ends_with("step-00000010"));
    assert_eq!(steps(dir.path()), ["abandoned-step-00000020", "abandoned-step-00000030", "step-00000010"]);
}

#[test]
fn a_save_that_fails_midway_leaves_the_earlier_ones() {
    if let Some(dir) = child::folder() {
        child::limit_file_size(4096);
        let mut big = example(2);
        let group = BTreeMap::from([("w".to_owned(), Tensor::ones([100_000], (Kind::Float, Device::Cpu)))]);
        big.tensors.insert("trained".to_owned(), group);
        let message = format!("{:#}", save(&dir, &big, Some(last(1))).unwrap_err());
        assert!(message.starts_with("the checkpoint of step 2 was not saved"), "{message}");
        assert!(message.contains("trained.safetensors: cannot write"), "{message}");
        return;
    }
    let dir = tempdir().unwrap();
    let first = save(dir.path(), &example(1), None).unwrap();
    let status =
        child::spawn("checkpoint::a_save_that_fails_midway_leaves_the_earlier_ones", dir.path()).wait().unwrap();
    assert!(status.success());
    assert_eq!(steps(dir.path()), ["step-00000001"]);
    assert_eq!(found(dir.path()).0, first);
}

#[test]
fn groups_and_steps_that_make_no_file_name_are_refused() {
    let dir = tempdir().unwrap();
    let mut bad = example(1);
    bad.tensors.insert("../x".to_owned(), BTreeMap::new());
    assert!(format!("{:#}", save(dir.path(), &bad, None).unwrap_err()).contains("`../x` cannot be the name"));
    assert!(save(dir.path(), &example(-1), None).is_err());
    assert!(steps(dir.path()).is_empty());
}

#[test]
fn a_group_in_a_manifest_cannot_leave_its_folder() {
    let dir = tempdir().unwrap();
    let path = save(dir.path(), &example(1), None).unwrap();
    let manifest = path.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("adam.safetensors", "../adam.safetensors");
    fs::write(&manifest, text).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("not a plain file name"));
}

#[test]
fn safetensors_files_are_valid_sorted_and_reproducible() {
    let dir = tempdir().unwrap();
    let group = &example(3).tensors["trained"];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("a".to_owned(), "b".to_owned())]);
    let path = dir.path().join("x.safetensors");
    write_safetensors(&path, group, &metadata).unwrap();
    let content = fs::read(&path).unwrap();
    let mut again = Vec::new();
    stream_safetensors(&mut again, group, &metadata).unwrap();
    assert_eq!(content, again);
    let parsed = safetensors::SafeTensors::deserialize(&content).unwrap();
    assert_eq!(parsed.names().len(), KINDS.len());
    for (name, tensor) in group {
        assert_eq!(parsed.tensor(name).unwrap().data(), bytes(tensor), "{name}");
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&content).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    assert!(KINDS.iter().all(|&kind| kind_of(dtype_of(kind).unwrap()) == Some(kind)));
}

#[test]
fn tensors_that_the_format_lacks_are_named() {
    let one = Tensor::zeros([1], (Kind::ComplexDouble, Device::Cpu));
    let error = stream_safetensors(&mut Vec::new(), [("x.y", &one)], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("`x.y` is ComplexDouble"), "{error}");
    let one = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let error = stream_safetensors(&mut Vec::new(), [("x", &one), ("x", &one)], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("`x` is given twice"), "{error}");
}
