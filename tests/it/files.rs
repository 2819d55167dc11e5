use std::fs;
use std::io::{self, Write};

use animatediff::files::{check_writable, commit_dir, free_space, remove_staging, staging_path, write_atomic};
use tempfile::tempdir;

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_staging() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    write_atomic(&path, |out| Ok(out.write_all(b"old")?)).unwrap();
    let error = write_atomic(&path, |out| -> anyhow::Result<()> {
        out.write_all(b"half of the new")?;
        Err(io::Error::from_raw_os_error(28).into())
    });
    let message = format!("{:#}", error.unwrap_err());
    assert!(message.starts_with(&format!("{}: cannot write, the disk is full (", path.display())), "{message}");
    assert!(message.contains(" MiB free)"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["config.yaml"]);
}

#[test]
fn a_written_file_replaces_the_old_one_whole() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x");
    write_atomic(&path, |out| Ok(out.write_all(&[1; 3_000_000])?)).unwrap();
    let value = write_atomic(&path, |out| out.write_all(b"new").map(|()| 7).map_err(Into::into)).unwrap();
    assert_eq!((value, fs::read(&path).unwrap()), (7, b"new".to_vec()));
    assert_eq!(names(dir.path()), ["x"]);
}

#[test]
fn a_file_where_a_folder_is_needed_is_named() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("out"), "a file").unwrap();
    let message = format!("{:#}", check_writable(&dir.path().join("out/run")).unwrap_err());
    assert!(message.contains("out/run: cannot create the folder: Not a directory"), "{message}");
    let message = format!("{:#}", write_atomic(&dir.path().join("none/x"), |_| Ok(())).unwrap_err());
    assert!(message.contains("none/x: cannot create its staging file: No such file"), "{message}");
}

#[test]
fn a_writable_folder_is_made_and_left_empty() {
    let dir = tempdir().unwrap();
    let deep = dir.path().join("a/b");
    check_writable(&deep).unwrap();
    assert!(names(&deep).is_empty());
    assert!(free_space(&deep).unwrap() > 0);
}

#[test]
fn committing_a_folder_replaces_one_that_is_there() {
    let dir = tempdir().unwrap();
    let target = dir.path().join("step-1");
    for content in ["first", "second"] {
        let staging = staging_path(&target).unwrap();
        fs::create_dir_all(staging.join("deep")).unwrap();
        fs::write(staging.join("deep/x"), content).unwrap();
        commit_dir(&staging, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("deep/x")).unwrap(), content);
        assert_eq!(names(dir.path()), ["step-1"]);
    }
}

#[test]
fn only_staging_is_cleaned_up() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join(".step-2.partial-123")).unwrap();
    fs::write(dir.path().join(".step-2.partial-123/model"), "x").unwrap();
    for name in [".config.yaml.partial-9", ".hidden", "x.partial-9", ".x.partial-", ".x.partial-9a"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    assert_eq!(remove_staging(dir.path()).unwrap(), 2);
    assert_eq!(names(dir.path()), [".hidden", ".x.partial-", ".x.partial-9a", "x.partial-9"]);
}
