//! What a run has on the disk: its folder, the checkpoints that it is taken up from, and what it leaves at its end.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::{Observer, Run};
use crate::{
    files::{self, Written},
    panics,
    train::{
        Config, Refused, Stage,
        bad_step::Diverged,
        board::Board,
        checkpoint::{self, Checkpoint, saver::Saver},
        export,
        folder::RunFolder,
        identity,
        interrupt::Signal,
        metrics::Metrics,
        outputs::{Outputs, tell},
        resume::Point,
        trainer::{Network, State},
    },
    yaml,
};

/// Clips that a new VAE's scaling factor is measured on.
const SCALED_ON: usize = 256;

/// Key of a checkpoint's state under which the trainer's own values are; the others are what must not change.
const TRAINER: &str = "trainer";
/// Key of the step whose samples are written.
const SHOWN: &str = "shown";

impl Run {
    /// The files of a new run.
    pub(super) fn new_outputs(&self, name: &str) -> Result<Outputs> {
        let config = &self.config;
        let folder = if config.is_debug {
            RunFolder::debug(&config.output_dir)?
        } else {
            RunFolder::create(&config.output_dir, name)?
        };
        write_config(&folder, config)?;
        let mut board = Board::create(&folder.tensorboard(), None)?;
        show_config(&mut board, config)?;
        let saver = Saver::new(&folder.checkpoints(), None);
        Ok(Outputs { board, metrics: Metrics::create(&folder.metrics())?, folder, saver })
    }

    /// Those of a run that is taken up, at the checkpoint of `point`.
    pub(super) fn old_outputs(&mut self, point: &Point, observer: &mut dyn Observer) -> Result<Outputs> {
        let folder = RunFolder::open(&point.folder)?;
        let found = point;
        let point = &found.again().map_err(Refused)?;
        if point.checkpoint != found.checkpoint {
            observer.note(&format!("saved meanwhile, and gone on from: {}", point.checkpoint.display()));
        }
        for damaged in &point.damaged {
            observer.note(&format!("warning: a damaged checkpoint is passed over for the one before it: {damaged}"));
        }
        self.restore(&point.checkpoint).map_err(Refused)?;
        write_config(&folder, &self.config)?;
        let step = self.trainer.step();
        let mut board = Board::create(&folder.tensorboard(), Some(first_anew(step)))?;
        if step == 0 {
            show_config(&mut board, &self.config)?;
        }
        for abandoned in checkpoint::abandon_after(&folder.checkpoints(), step)? {
            observer.wrote("set aside, as it is later than the step resumed from:", &abandoned);
        }
        Ok(Outputs {
            board,
            metrics: Metrics::resume(&folder.metrics(), step)?,
            saver: Saver::new(&folder.checkpoints(), Some(step)),
            folder,
        })
    }

    /// Brings the trainer to where the checkpoint in the folder `path` left off.
    pub(super) fn restore(&mut self, path: &Path) -> Result<()> {
        let Checkpoint { step, tensors: groups, mut state } = checkpoint::load(path)?;
        let unusable = || format!("{}: cannot be resumed", path.display());
        self.check_same(&state).with_context(unusable)?;
        // Checkpoints from before there was anything to tell have no such key.
        let values = match state.get_mut(TRAINER).map(Value::take) {
            Some(Value::Object(values)) => values,
            _ => Map::new(),
        };
        self.shown = state.get(SHOWN).and_then(Value::as_i64).unwrap_or(step);
        self.trainer.restore(&State { step, groups, values }).with_context(unusable)
    }

    /// Begins to save a checkpoint; what was logged before it is on disk first. Waits for the one before, and for a copy.
    pub(super) fn save(&self, outputs: &mut Outputs, observer: &mut dyn Observer) -> Result<()> {
        let started = Instant::now();
        let State { step, groups: tensors, values } = self.trainer.state();
        let mut state = self.identity();
        state[TRAINER] = values.into();
        state[SHOWN] = self.shown.into();
        let logged = [outputs.board.written()?, outputs.metrics.written()?];
        let sync = move || logged.iter().try_for_each(Written::sync);
        let keep = self.config.keep(self.trainer.updated());
        let before = outputs.saver.begin(Checkpoint { step, tensors, state }, keep, sync)?;
        tracing::info!(
            "the checkpoint of step {step} kept the update waiting {:.3} s",
            started.elapsed().as_secs_f64()
        );
        before.iter().for_each(|saved| tell(saved, observer));
        Ok(())
    }

    pub(super) fn checkpoint_due(&self, step: i64) -> bool {
        let (steps, epochs) = (self.config.checkpointing_steps, self.config.checkpointing_epochs);
        let epoch = |step: i64| step * self.config.clips_per_step() as i64 / self.dataset.len() as i64;
        (steps > 0 && step % steps == 0) || (epochs > 0 && epoch(step) / epochs > epoch(step - 1) / epochs)
    }

    /// Saves what was reached before `error`, if it is worth keeping.
    pub(super) fn rescue(&self, outputs: &mut Outputs, error: &anyhow::Error, observer: &mut dyn Observer) {
        // The first error is the one to tell; a full disk would only repeat itself here.
        let _ = outputs.settle(observer);
        // A run that diverged has nothing to keep but what it had before; one that is gone on with begins after the last row.
        let step = self.trainer.step();
        let logged = outputs.metrics.last_step() == step;
        let worth = step > 0 && logged && !error.is::<Diverged>() && self.trainer.is_whole();
        if worth && outputs.saver.latest() != Some(step) {
            let _ = panics::catch(|| self.save(outputs, observer).and_then(|()| outputs.settle(observer)));
        }
    }

    /// The last checkpoint, and what other tools read; gives the path of that.
    pub(super) fn finish(
        &mut self,
        outputs: &mut Outputs,
        interrupted: Option<Signal>,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf> {
        if outputs.saver.latest() != Some(self.trainer.step()) {
            self.save(outputs, observer)?;
        }
        outputs.settle(observer)?;
        if self.trainer.bad_steps() > 0 {
            self.warn_of_skipped(outputs, observer)?;
        }
        let averages = self.trainer.averages();
        match interrupted {
            None => self.base.vae.scaling_factor = self.scaling_factor()?,
            Some(_) if self.rescales() => observer.note("`vae.rescale`: waits for the end of the run"),
            Some(_) => {}
        }
        let folder = outputs.folder.export();
        let export = export::export(&folder, self.recipe.stage, &self.config, &self.base, &self.trainer)?;
        drop(averages);
        observer.wrote("export", &export);
        Ok(export)
    }

    /// Says what to go on from if the weights are the reason why the last steps were skipped.
    fn warn_of_skipped(&self, outputs: &Outputs, observer: &mut dyn Observer) -> Result<()> {
        let sound = checkpoint::newest_before(&outputs.folder.checkpoints(), self.trainer.updated())?;
        let sound = sound.map_or(String::new(), |path| format!("; {} is from before the last update", path.display()));
        let (skipped, step) = (self.trainer.bad_steps(), self.trainer.step());
        observer.note(&format!(
            "warning: {skipped} steps in a row were skipped up to this one, {step}, and its weights may be the cause{sound}"
        ));
        Ok(())
    }

    fn rescales(&self) -> bool {
        self.recipe.stage == Stage::Vae && self.config.vae.rescale
    }

    /// The VAE's scaling factor: measured on the first clips of the stream, for a VAE from nothing.
    fn scaling_factor(&self) -> Result<f64> {
        match self.trainer.network() {
            Network::Autoencoder(autoencoder) if self.rescales() => {
                Ok(autoencoder.scaling_factor(&self.whole_stream()?.next_batch(SCALED_ON)?))
            }
            _ => Ok(self.base.vae.scaling_factor),
        }
    }

    /// What must be the same for a resumed run to equal the undisturbed one.
    pub(super) fn identity(&self) -> Value {
        identity::of(&self.config, &self.recipe, &self.dataset, self.cache.as_deref(), &self.loaded)
    }

    fn check_same(&self, saved: &Value) -> Result<()> {
        // A key that came with a later version had no other value than its default before; what is loaded is taken to be the same.
        let default = Config::for_stage(self.recipe.stage);
        let default = identity::of(&default, &self.recipe, &self.dataset, self.cache.as_deref(), &self.loaded);
        identity::check_same(saved, &self.identity(), &default)
    }
}

/// The first step that is put on the board anew in a run that goes on after `step`; what is there before any is of step 0.
fn first_anew(step: i64) -> i64 {
    if step == 0 { 0 } else { step + 1 }
}

fn show_config(board: &mut Board, config: &Config) -> Result<()> {
    board.text("config", 0, &format!("```yaml\n{}```", yaml::to_text(config)))
}

fn write_config(folder: &RunFolder, config: &Config) -> Result<()> {
    files::write_atomic(&folder.config(), |out| Ok(out.write_all(yaml::to_text(config).as_bytes())?))
}
