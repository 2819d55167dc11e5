//! Where experiments are done: steps whose results are kept under a name made of their inputs.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Device;

use super::{Budget, Settings, digest};
use crate::{
    assemble::Base,
    files,
    train::{
        Refused, folder,
        interrupt::{Interrupt, Signal},
    },
};

/// What a step's folder holds beside its result.
const RECORD: &str = "step.json";

/// Changes when results of the same inputs would be different.
const FORMAT: u32 = 3;

/// Who is told how it goes.
pub trait Watcher: Send {
    /// A step of `length` parts begins.
    fn begun(&mut self, name: &str, length: u64);
    /// It has come to `position`.
    fn at(&mut self, position: u64, note: String);
    /// It is done, or was found done.
    fn done(&mut self, record: &Record);
}

/// A step that is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// How long it took, in the call that finished it: what an interrupted call did before is not in it.
    pub seconds: f64,
    /// What else there is to say about it, such as the seconds per update of a training.
    pub notes: Value,
    /// Whether an earlier call made it.
    #[serde(default)]
    pub reused: bool,
    /// What it was made from.
    pub inputs: Value,
}

/// A signal came. What was done is kept; the same call again goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Interrupted(pub Signal);

/// The place of all steps, for one seed at a time.
pub struct Lab<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// The base model.
    pub base: Base,
    /// Where it computes.
    pub device: Device,
    pub(super) watcher: &'a mut dyn Watcher,
    pub(super) interrupt: Interrupt,
    seed: u64,
    told: HashSet<PathBuf>,
    records: Vec<Record>,
    digests: BTreeMap<PathBuf, String>,
    _lock: File,
}

impl<'a> Lab<'a> {
    /// Opens the base and settles where to compute.
    pub fn open(settings: &'a Settings, watcher: &'a mut dyn Watcher) -> Result<Lab<'a>> {
        let device = settings.device.resolve().map_err(|reason| Refused(anyhow!(reason)))?;
        let base = Base::open(&settings.base)?;
        files::check_writable(&settings.out)?;
        let lock = folder::lock(&settings.out)?;
        for folder in ["steps", "runs"] {
            let folder = settings.out.join(folder);
            fs::create_dir_all(&folder).map_err(|error| files::failed(&folder, "create the folder", error))?;
            files::remove_staging(&folder)?;
        }
        Ok(Lab {
            settings,
            base,
            device,
            _lock: lock,
            watcher,
            interrupt: Interrupt::install().context("signals cannot be handled")?,
            seed: 0,
            told: HashSet::new(),
            records: Vec::new(),
            digests: BTreeMap::new(),
        })
    }

    /// How much of everything.
    pub fn budget(&self) -> &'a Budget {
        &self.settings.budget
    }

    /// The seed that all steps are made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Goes on with another seed.
    pub fn start_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// All steps so far, each once.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The hash of a file or folder of weights, which must not change any more.
    pub fn digest(&mut self, path: &Path) -> Result<String> {
        if let Some(digest) = self.digests.get(path) {
            return Ok(digest.clone());
        }
        let digest = digest::of_path(path)?;
        self.digests.insert(path.to_owned(), digest.clone());
        Ok(digest)
    }

    /// Ends the work if a signal came.
    pub fn check(&self) -> Result<()> {
        stop(&self.interrupt)
    }

    /// The folder of the step `name` of `inputs`: as it was left by an earlier call, or made by `work`, which is given a
    /// folder to write into and the step's key, and says what is worth noting. It appears complete or not at all.
    pub fn step(
        &mut self,
        name: &str,
        inputs: Value,
        work: impl FnOnce(&mut Lab, &Path, &str) -> Result<Value>,
    ) -> Result<PathBuf> {
        self.check()?;
        let inputs = json!({"format": FORMAT, "device": self.place(), "inputs": inputs});
        let key = format!("{name}-s{}-{}", self.seed, digest::of_json(&inputs));
        let folder = self.settings.out.join("steps").join(&key);
        if !self.told.insert(folder.clone()) {
            return Ok(folder);
        }
        let record = if folder.join(RECORD).is_file() {
            Record { reused: true, ..read(&folder.join(RECORD))? }
        } else {
            let staging = files::staging_path(&folder)?;
            fs::create_dir_all(&staging).map_err(|error| files::failed(&staging, "create the folder", error))?;
            let start = Instant::now();
            let notes = work(self, &staging, &key)?;
            let seconds = start.elapsed().as_secs_f64();
            let record = Record { name: self.title(name), seconds, notes, reused: false, inputs };
            let json = serde_json::to_vec_pretty(&record)?;
            files::write_atomic(&staging.join(RECORD), |out| Ok(out.write_all(&json)?))?;
            files::commit_dir(&staging, &folder)?;
            record
        };
        self.watcher.done(&record);
        self.records.push(record);
        Ok(folder)
    }

    /// What a step is called where it is told.
    pub(super) fn title(&self, name: &str) -> String {
        let name = name.replace('-', " ");
        if self.settings.seeds > 1 { format!("{name} (seed {})", self.seed) } else { name }
    }

    /// Results of the CPU and of CUDA differ, and so do their times.
    fn place(&self) -> &'static str {
        if self.device.is_cuda() { "cuda" } else { "cpu" }
    }
}

/// An error if a signal came.
pub(super) fn stop(interrupt: &Interrupt) -> Result<()> {
    match interrupt.requested() {
        Some(signal) => Err(Interrupted(signal).into()),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Record> {
    let damaged = || format!("{}: cannot be read; remove its folder to repeat the step", path.display());
    serde_json::from_slice(&fs::read(path).with_context(damaged)?).with_context(damaged)
}
