//! Runs the program as a user does: shell lines in a folder of their own, on models and clips that are made once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use animatediff::weights::read;
use serde_json::Value;
use tch::Tensor;
use tempfile::TempDir;

use crate::support::{golden_path, tensors_of, write};

/// The program of this build.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_animatediff");

/// What a line did.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A temporary folder in which lines are run.
pub struct Desk {
    dir: TempDir,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `line` does, in a shell that knows `animatediff` and the variables of [`shared`].
    pub fn run(&self, line: &str) -> Done {
        finish(self.command(line))
    }

    /// A shell of this folder for `line`. `exec` in it gives the program the shell's own process number.
    pub fn command(&self, line: &str) -> Command {
        let mut command = shell(self.dir.path(), line);
        command.envs(shared().iter());
        command
    }

    /// Runs what has to succeed; gives standard output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let done = self.run(line);
        assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
        done.stdout
    }

    /// Runs what has to be refused with exit code 2, in words that contain each of `words`; gives the message.
    #[track_caller]
    pub fn refused(&self, line: &str, words: &[&str]) -> String {
        self.fails(line, 2, words)
    }

    /// Runs what has to fail with `code` and without a panic.
    #[track_caller]
    pub fn fails(&self, line: &str, code: i32, words: &[&str]) -> String {
        let done = self.run(line);
        assert_eq!(done.code, Some(code), "{line}\n{}\n{}", done.stdout, done.stderr);
        assert!(done.stderr.contains("error: "), "{line}\n{}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "{line}\nlacks `{word}`:\n{}", done.stderr);
        }
        done.stderr
    }

    /// Trains as `line` says after `train`; gives the run's folder.
    #[track_caller]
    pub fn train(&self, line: &str) -> Run {
        self.train_on(1, line)
    }

    /// The same on so many of libtorch's threads.
    #[track_caller]
    pub fn train_on(&self, threads: usize, line: &str) -> Run {
        let stdout = self.ok(&format!("OMP_NUM_THREADS={threads} animatediff train {line}"));
        let export = self.path(stdout.trim_end().lines().last().unwrap());
        let folder = export.ancestors().find(|folder| folder.join("config.yaml").is_file()).unwrap();
        Run { folder: folder.to_owned(), export }
    }

    /// Names of all files below, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        walk(self.dir.path(), self.dir.path(), &mut names);
        names.sort();
        names
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The tensor `latents` of a file.
    pub fn latents(&self, name: &str) -> Tensor {
        tensors_of(&self.path(name)).remove("latents").unwrap()
    }
}

/// A finished training run.
pub struct Run {
    pub folder: PathBuf,
    /// The file or, for a whole base, the folder that is exported.
    pub export: PathBuf,
}

impl Run {
    pub fn rows(&self) -> Vec<serde_json::Map<String, Value>> {
        animatediff::train::metrics::read(&self.folder.join("metrics.jsonl")).unwrap()
    }

    /// The losses, and what else of a step must repeat bit for bit.
    pub fn losses(&self) -> Vec<[f64; 3]> {
        self.rows().iter().map(|row| ["loss", "grad_norm", "lr"].map(|key| row[key].as_f64().unwrap())).collect()
    }

    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        tensors_of(&self.export)
    }

    pub fn metadata(&self) -> BTreeMap<String, String> {
        read(&self.export).unwrap().metadata
    }

    /// Names in one of its folders, sorted.
    pub fn names(&self, part: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(part)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs a prepared command to its end.
pub fn finish(mut command: Command) -> Done {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let done = Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!done.stderr.contains("panicked") && !done.stderr.contains("this is a mistake"), "{}", done.stderr);
    done
}

fn shell(dir: &Path, line: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let bin = Path::new(PROGRAM).parent().unwrap().display();
    let mut command = Command::new("sh");
    command.args(["-e", "-c", line]).current_dir(dir);
    command
        .env("PATH", format!("{bin}:{path}"))
        .env("OMP_NUM_THREADS", "1")
        .env_remove("RUST_LOG")
        .env("COLUMNS", "80");
    command
}

fn walk(root: &Path, dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, names);
        } else {
            names.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// What lines can name: `$BASE`, a tiny random base; `$SHAPES`, a set of clips; `$TINY`, a configuration for a few quick
/// steps on them; `$CONFIGS`, `$OFFICIAL`; `$GOLD`, the golden base, with `$V1`, `$V2`, `$V3`, `$ADAPTER` and `$LORA` that
/// fit it and of which nothing is zero.
pub fn shared() -> &'static BTreeMap<&'static str, String> {
    static SHARED: LazyLock<BTreeMap<&str, String>> = LazyLock::new(make);
    &SHARED
}

fn make() -> BTreeMap<&'static str, String> {
    let root = fresh_folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in [
        "animatediff init --preset tiny base",
        "animatediff data shapes shapes --clips 8 --frames 12 --size 64 --seed 3",
    ] {
        let done = finish(shell(&root, line));
        assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
    }
    let place = |name: &str| root.join(name).display().to_string();
    fs::write(root.join("tiny.yaml"), tiny(&place("base"), &place("shapes"))).unwrap();
    let module = tensors_of(&golden_path("motion_v2.safetensors"));
    let without_middle = || {
        let outer = module.iter().filter(|(name, _)| !name.contains("mid_block."));
        outer.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect::<Vec<_>>()
    };
    write(&root.join("v3.safetensors"), without_middle());
    let short = |(name, tensor): (String, Tensor)| match name.ends_with(".pe") {
        true => (name, tensor.narrow(1, 0, 24).contiguous()),
        false => (name, tensor),
    };
    write(&root.join("v1.safetensors"), without_middle().into_iter().map(short));
    let golden = |name: &str| golden_path(name).display().to_string();
    BTreeMap::from([
        ("BASE", place("base")),
        ("SHAPES", place("shapes")),
        ("TINY", place("tiny.yaml")),
        ("CONFIGS", source.join("configs").display().to_string()),
        ("OFFICIAL", source.join("tests/official").display().to_string()),
        ("GOLD", golden("base")),
        ("V1", place("v1.safetensors")),
        ("V2", golden("motion_v2.safetensors")),
        ("V3", place("v3.safetensors")),
        ("ADAPTER", golden("adapter.safetensors")),
        ("LORA", golden("motion_lora.safetensors")),
    ])
}

/// A configuration for any stage: two steps of two clips.
fn tiny(base: &str, shapes: &str) -> String {
    format!(
        "\
output_dir: runs
pretrained_model_path: {base}
train_data:
  csv_path: {shapes}/clips.csv
  video_folder: {shapes}/videos
  sample_size: 32
  sample_stride: 2
  sample_n_frames: 4
  prefetch: 4
lora: {{rank: 4}}
learning_rate: 1.0e-3
train_batch_size: 2
max_train_steps: 2
num_workers: 1
device: cpu
validation_data: {{num_inference_steps: 2}}
"
    )
}

/// A folder that is this process's own; those of processes that are gone are removed.
fn fresh_folder() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("cli-").is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let folder = parent.join(format!("cli-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
