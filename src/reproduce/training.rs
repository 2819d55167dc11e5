//! Trainings as steps: configured by YAML files, resumed where they were interrupted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::{Interrupted, Lab, Watcher};
use crate::{
    config,
    dist::Comm,
    files,
    train::{
        Config, Refused, Stage,
        clock::Pace,
        folder::METRICS,
        metrics,
        resume::Point,
        run::{Observer, Run, Summary},
        trainer::StepReport,
    },
    yaml,
};

/// A training: a stage, its configuration, and what is set in it.
pub(super) struct Training<'a> {
    /// Name of the step.
    pub name: &'a str,
    /// Stage.
    pub stage: Stage,
    /// Name of the configuration's file, without `.yaml`.
    pub config: &'a str,
    /// Keys that are set over the file's, `key=value`.
    pub set: Vec<String>,
    /// Updates at most.
    pub most: Option<i64>,
    /// The clips: a table, and the folder they lie in where the table does not say.
    pub data: (PathBuf, Option<PathBuf>),
    /// Motion module that is trained on.
    pub motion: Option<PathBuf>,
    /// Adapter merged while training.
    pub adapter: Option<PathBuf>,
}

impl Lab<'_> {
    /// The weights that `training` leaves: a file, or a folder for a whole base.
    pub(super) fn train(&mut self, training: &Training) -> Result<PathBuf> {
        let config = self.config(training)?;
        let inputs = self.inputs(training.stage, &config)?;
        let folder = self.step(training.name, inputs, |lab, folder, key| {
            let runs = lab.settings.out.join("runs").join(key);
            let mut config = config.clone();
            config.output_dir.clone_from(&runs);
            lab.run(training, config, &runs, folder)
        })?;
        let weights = folder.join("weights");
        let single = fs::read_dir(&weights).with_context(|| format!("{}: cannot be read", weights.display()))?;
        let single: Vec<PathBuf> = single.flatten().map(|entry| entry.path()).collect();
        match single.as_slice() {
            [file] if file.is_file() => Ok(file.clone()),
            _ => Ok(weights),
        }
    }

    /// The configuration as it is run, but for the folder it writes to.
    fn config(&self, training: &Training) -> Result<Config> {
        let quoted = |text: &str| serde_json::to_string(text).expect("a string is JSON, and so YAML");
        let path = |key: &str, path: Option<&Path>| {
            format!("{key}={}", path.map_or("null".into(), |path| quoted(&path.display().to_string())))
        };
        let mut overrides = training.set.clone();
        overrides.extend([
            path("pretrained_model_path", Some(&self.settings.base)),
            path("motion", training.motion.as_deref()),
            path("adapter", training.adapter.as_deref()),
            path("train_data.csv_path", Some(&training.data.0)),
            path("train_data.video_folder", training.data.1.as_deref()),
            "train_data.videos=null".into(),
            "train_data.caption=null".into(),
            "is_debug=false".into(),
            format!("global_seed={}", self.seed()),
            format!("device={}", self.settings.device),
        ]);
        if let Some(steps) = self.budget().training_steps {
            overrides.extend([format!("max_train_steps={steps}"), "max_train_epoch=-1".into()]);
            overrides.push("lr_warmup_steps=0".into());
        }
        let file = self.settings.configs.join(format!("{}.yaml", training.config));
        if !file.is_file() {
            return Err(Refused(anyhow!(
                "{}: there is no such configuration; run from the repository's folder, or give --configs DIR",
                file.display()
            ))
            .into());
        }
        let mut config = config::load(training.stage, Some(&file), &overrides)?;
        if let Some(most) = training.most {
            let by_epochs = config.max_train_steps < 0;
            config.max_train_steps = if by_epochs { most } else { config.max_train_steps.min(most) };
            config.max_train_epoch = -1;
        }
        Ok(config)
    }

    /// What decides about the result: the configuration, with hashes in the place of files.
    fn inputs(&mut self, stage: Stage, config: &Config) -> Result<Value> {
        let mut hashed = config.clone();
        let mut hash = |path: &Path| self.digest(path).map(PathBuf::from);
        hashed.pretrained_model_path = hash(&config.pretrained_model_path)?;
        hashed.motion = config.motion.as_deref().map(&mut hash).transpose()?;
        hashed.adapter = config.adapter.as_deref().map(&mut hash).transpose()?;
        // The table's folder is a step's, whose name is its key.
        let table = config.train_data.csv_path.as_deref().expect("it was set");
        hashed.train_data.csv_path = table.strip_prefix(&self.settings.out).ok().map(Path::to_owned);
        hashed.train_data.video_folder = None;
        (hashed.output_dir, hashed.device) = (PathBuf::new(), Default::default());
        Ok(json!({"stage": stage, "config": yaml::to_text(&hashed)}))
    }

    /// Starts the run, or goes on with the one that was interrupted, and moves what it exports into `folder`.
    fn run(&mut self, training: &Training, config: Config, runs: &Path, folder: &Path) -> Result<Value> {
        let clips = config.clips_per_step();
        let saved = resumable(runs)?;
        let run = Run::prepare(training.stage, config, Comm::solo())?;
        let title = self.title(training.name);
        let mut told = Told { watcher: &mut *self.watcher, title, pace: None, first: 0, loss: f64::NAN };
        let finished = match &saved {
            Some(saved) => run.resume(saved, &mut told)?,
            None => {
                clear(runs)?;
                run.start(training.name, &mut told)?
            }
        };
        let Told { pace, first, loss, .. } = told;
        if let Some(signal) = finished.interrupted {
            return Err(Interrupted(signal).into());
        }
        let weights = folder.join("weights");
        let export = finished.folder.join("export");
        fs::rename(&export, &weights).map_err(|error| files::failed(&weights, "move the weights to", error))?;
        for name in ["config.yaml", METRICS] {
            let from = finished.folder.join(name);
            fs::copy(&from, folder.join(name)).map_err(|error| files::failed(&from, "copy", error))?;
        }
        clear(runs)?;
        Ok(json!({
            "seconds_per_step": pace.map(|pace| clips as f64 / pace.clips_per_second),
            "waiting_for_data": pace.map(|pace| pace.waiting),
            "resumed_at": first,
            "last_loss": loss,
        }))
    }
}

/// How many updates the training had that left `weights`.
pub(super) fn updates(weights: &Path) -> Result<u64> {
    let rows = weights.ancestors().map(|folder| folder.join(METRICS)).find(|rows| rows.is_file());
    let rows = rows.with_context(|| {
        format!("{}: no {METRICS} lies beside it; remove its folder to repeat the training", weights.display())
    })?;
    let last = metrics::read(&rows)?.pop().and_then(|row| row.get("step")?.as_u64());
    last.with_context(|| {
        format!("{}: its last row tells no step; remove its folder to repeat the training", rows.display())
    })
}

/// The run in `runs` that can be gone on with.
fn resumable(runs: &Path) -> Result<Option<Point>> {
    let Ok(entries) = fs::read_dir(runs) else { return Ok(None) };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if folder.join("config.yaml").is_file()
            && let Some(point) = Point::newest(&folder)?
        {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

/// Removes what a run left.
fn clear(runs: &Path) -> Result<()> {
    match fs::remove_dir_all(runs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(files::failed(runs, "remove", error)),
        _ => Ok(()),
    }
}

/// Tells the watcher of a run.
struct Told<'a> {
    watcher: &'a mut dyn Watcher,
    title: String,
    pace: Option<Pace>,
    first: i64,
    loss: f64,
}

impl Observer for Told<'_> {
    fn started(&mut self, summary: &Summary) {
        self.first = summary.steps.0;
        self.watcher.begun(&self.title, summary.steps.1 as u64);
    }

    fn stepped(&mut self, report: &StepReport, pace: &Pace) {
        (self.pace, self.loss) = (Some(*pace), report.loss);
        let left = Duration::from_secs(pace.left.as_secs());
        let note = format!("loss {:.4}, {:.1} clips/s, {left:?} left", report.loss, pace.clips_per_second);
        self.watcher.at(report.step as u64, note);
    }

    fn wrote(&mut self, _what: &str, _path: &Path) {}

    fn note(&mut self, text: &str) {
        tracing::warn!("{text}");
    }
}
