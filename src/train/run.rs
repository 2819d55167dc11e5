//! A run: the loop. `files` has what lies on the disk, `shown` what is made visible along the way. Where several processes train
//! together, the first of them has the files.

mod files;
mod shown;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};
use tch::{Device, Tensor};

use super::{
    Config, Refused, Stage,
    bad_step::{self, Diverged},
    caching, checkpoint,
    clock::{Clock, Pace},
    identity,
    interrupt::{Interrupt, SaveRequests, Signal},
    memory,
    outputs::Outputs,
    preview,
    recipe::Recipe,
    resume::Point,
    trainer::{Outcome, StepReport, Trainer},
};
use crate::{
    assemble::Base,
    data::{Cache, Dataset, Faults, Loader, Sample},
    device::Precision,
    dist::Comm,
    native, panics,
};

/// Who watches a run: the terminal, or a test.
pub trait Observer {
    /// Everything is loaded; training begins.
    fn started(&mut self, summary: &Summary);
    /// An update is done.
    fn stepped(&mut self, report: &StepReport, pace: &Pace);
    /// Something was written.
    fn wrote(&mut self, what: &str, path: &Path);
    /// Something happened that the user should know of.
    fn note(&mut self, text: &str);
}

/// What a run is about to do.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Stage.
    pub stage: Stage,
    /// The run's folder; none for a dry run.
    pub folder: Option<PathBuf>,
    /// Clips in the data set.
    pub clips: usize,
    /// Trained and frozen parameters.
    pub parameters: (i64, i64),
    /// Updates done before, and in all.
    pub steps: (i64, i64),
    /// Clips per update.
    pub clips_per_step: usize,
    /// Where, and in what precision.
    pub device: String,
    /// Processes that train together.
    pub ranks: usize,
}

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// The run's folder.
    pub folder: PathBuf,
    /// What the weights can be used by.
    pub export: PathBuf,
    /// The signal that ended it early.
    pub interrupted: Option<Signal>,
    /// Files that could not be read.
    pub faults: Faults,
}

/// A run that is ready to go: configuration checked, data listed, networks built.
pub struct Run {
    config: Config,
    recipe: Recipe,
    base: Base,
    dataset: Arc<Dataset>,
    cache: Option<Arc<Cache>>,
    trainer: Trainer,
    /// What identifies the files.
    loaded: Map<String, Value>,
    comm: Rc<Comm>,
    total_steps: i64,
    save_requests: SaveRequests,
    /// The last step whose samples are written.
    shown: i64,
}

impl Run {
    /// Loads everything that `config` names, for `stage`, to be trained together with the other processes of `comm`. Writes nothing. On
    /// the CPU the process keeps the memory that it frees from then on.
    pub fn prepare(stage: Stage, config: Config, comm: Comm) -> Result<Run> {
        let config = Config { ranks: comm.world(), ..config };
        // From here on, so that a wish that comes too early does not end the process.
        let save_requests = SaveRequests::install().context("signals cannot be handled")?;
        let device = config.device.of_rank(comm.local_rank()).resolve().map_err(|reason| Refused(anyhow!(reason)))?;
        if device == Device::Cpu {
            native::keep_freed_memory();
        }
        let comm = Rc::new(comm.on(device)?);
        let recipe = Recipe::new(stage, &config);
        let base = Base::open_files(&config.base_files())?;
        check_size(&config, &base).map_err(Refused)?;
        let mut data = config.train_data.clone();
        data.sample_n_frames = recipe.frames;
        let dataset = Arc::new(Dataset::open(&data)?);
        let cache = match &config.train_data.cache {
            Some(folder) => {
                let key = caching::key(&config, recipe.frames, &dataset, &base)?;
                Some(Arc::new(Cache::open(folder, &key, &dataset)?))
            }
            None => None,
        };
        let total_steps = config.total_steps(dataset.len());
        let lr = config.lr_schedule(total_steps);
        lr.check(config.base_lr()).map_err(|reason| Refused(anyhow!("lr_scheduler: {reason}")))?;
        let trainer = Trainer::new(&config, &recipe, &base, total_steps, device, Rc::clone(&comm))?;
        check_exportable(stage, &trainer).map_err(Refused)?;
        let loaded = identity::loaded(&config, &base, trainer.architecture())?;
        let run =
            Run { config, recipe, base, dataset, cache, trainer, loaded, comm, total_steps, save_requests, shown: 0 };
        let same = "start all processes with one configuration, on the same data";
        run.comm.check_equal("the configuration or the data", run.identity().to_string().as_bytes(), same)?;
        Ok(run)
    }

    /// What it will do.
    pub fn summary(&self, folder: Option<&Path>) -> Summary {
        let (device, kind) = self.trainer.device();
        let place = match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        };
        let count =
            |tensors: &BTreeMap<String, Tensor>| -> i64 { tensors.values().map(|tensor| tensor.numel() as i64).sum() };
        Summary {
            stage: self.recipe.stage,
            folder: folder.map(Path::to_owned),
            clips: self.dataset.len(),
            parameters: (count(&self.trainer.weights.trained), count(&self.trainer.weights.frozen)),
            steps: (self.trainer.step(), self.total_steps),
            clips_per_step: self.config.clips_per_step(),
            device: format!("{place}, {}", Precision::of(kind)),
            ranks: self.config.ranks,
        }
    }

    /// One loss on the next clips: everything but the update and the files. With a point to resume from, from there.
    pub fn dry(&mut self, resume: Option<&Point>) -> Result<f64> {
        if let Some(point) = resume {
            let comm = Rc::clone(&self.comm);
            comm.decide(|| Ok(self.restore(&point.checkpoint).map_err(Refused)?))?;
        }
        self.trainer.share()?;
        let mut loader = self.loader()?;
        let samples = loader.next_batch(self.config.clips_per_rank())?;
        Ok(self.trainer.evaluate(&samples, self.trainer.step())?)
    }

    /// Trains to the end, or to a signal, in a new folder.
    pub fn start(self, name: &str, observer: &mut dyn Observer) -> Result<Finished> {
        let outputs = first(&self.comm, || self.new_outputs(name))?;
        self.train(outputs, observer)
    }

    /// Takes up a run where it was left.
    pub fn resume(mut self, point: &Point, observer: &mut dyn Observer) -> Result<Finished> {
        let comm = Rc::clone(&self.comm);
        let outputs = first(&comm, || self.old_outputs(point, observer))?;
        self.train(outputs, observer)
    }

    /// The loop. Whatever ends it, the state reached is saved: by the end, by a signal, by an error, or by a panic, which is how
    /// libtorch fails. Not where an update broke off half-way, or its row could not be written.
    fn train(mut self, mut outputs: Option<Outputs>, observer: &mut dyn Observer) -> Result<Finished> {
        let interrupt = Interrupt::install().context("signals cannot be handled")?;
        self.trainer.share()?;
        observer.started(&self.summary(outputs.as_ref().map(|outputs| outputs.folder.root())));
        let mut loader = self.loader()?;
        let ended = panics::catch(|| self.steps(outputs.as_mut(), &mut loader, &interrupt, observer));
        let ended = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        let interrupted = match (ended, &mut outputs) {
            (Ok(interrupted), _) => interrupted,
            (Err(error), outputs) => {
                if let Some(outputs) = outputs {
                    self.rescue(outputs, &error, observer);
                }
                return Err(error);
            }
        };
        // The others end with the first, so that what started them does not take their end for a reason to stop it.
        let comm = Rc::clone(&self.comm);
        let (folder, export) = comm.decide(|| {
            let outputs = outputs.as_mut().expect("the first process has the files");
            Ok((outputs.folder.root().to_owned(), self.finish(outputs, interrupted, observer)?))
        })?;
        Ok(Finished { folder, export, interrupted, faults: loader.faults().clone() })
    }

    /// Updates until all are done or a signal came, which is given.
    fn steps(
        &mut self,
        mut outputs: Option<&mut Outputs>,
        loader: &mut Loader,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Option<Signal>> {
        // Several processes stop after the same step: between steps they agree, and nothing in one ends it.
        let alone = self.comm.world() == 1;
        let come = || interrupt.requested().is_some();
        let stop = || alone && come();
        let mut clock = Clock::start();
        let (first, clips) = (self.trainer.step(), self.config.clips_per_rank());
        let encoders = self.trainer.encoders();
        let (mut ahead, mut owed) = (None, false);
        if let Some(outputs) = outputs.as_deref_mut()
            && !self.catch_up(outputs, come, observer)?
            && alone
        {
            return Ok(interrupt.requested());
        }
        while self.trainer.step() < self.total_steps {
            let fetched = ahead.take().unwrap_or_else(|| clock.wait(|| batch(loader, clips, stop)));
            let Some(samples) = fetched? else { return Ok(interrupt.requested()) };
            if let Some(outputs) = outputs.as_deref_mut().filter(|_| self.trainer.step() == 0) {
                let frames = |sample: &Sample| self.trainer.frames(sample);
                preview::first_batch(&outputs.folder.sanity_check(), &mut outputs.board, &samples, frames)?;
            }
            let more = self.trainer.step() + 1 < self.total_steps;
            let updated = match encoders.as_ref().filter(|_| more) {
                Some(encoders) => {
                    let update = || self.update(outputs.as_deref_mut(), &samples, stop, observer);
                    let (updated, next, waited) = encoders.beside(|| batch(loader, clips, stop), update);
                    clock.waited += waited;
                    ahead = Some(next);
                    updated
                }
                None => self.update(outputs.as_deref_mut(), &samples, stop, observer),
            };
            let Some(report) = updated? else { return Ok(interrupt.requested()) };
            let (done, left) = (report.step - first, self.total_steps - report.step);
            let clips = self.config.clips_per_step();
            let pace = clock.pace(done as usize * clips, left, clips);
            observer.stepped(&report, &pace);
            if self.dist_check_due(report.step) {
                self.trainer.check_equal()?;
            }
            if let Some(outputs) = outputs.as_deref_mut() {
                outputs.log(&report, &pace)?;
                outputs.tell_saved(observer)?;
            }
            let wishes = self.wishes(interrupt)?;
            if wishes.stop.is_some() {
                return Ok(wishes.stop);
            }
            let Some(outputs) = outputs.as_deref_mut() else { continue };
            // Before the checkpoint: what a checkpoint counts as shown is on the disk before it.
            if self.validation_due(report.step) && !self.show(outputs, &samples, come, observer)? && alone {
                return Ok(interrupt.requested());
            }
            // Not while steps are skipped: the weights may be the cause.
            owed |= wishes.save || self.checkpoint_due(report.step);
            if owed && report.outcome == Outcome::Updated {
                clock.save(|| self.save(outputs, observer))?;
                owed = false;
            }
        }
        Ok(None)
    }

    /// What the processes were asked for by signals: if one was, all are.
    fn wishes(&self, interrupt: &Interrupt) -> Result<Wishes> {
        let signal = interrupt.requested().map_or(0, Signal::number);
        let [signal, save] = self.comm.max([signal, i64::from(self.save_requests.take())])?;
        Ok(Wishes { stop: Signal::from_number(signal), save: save == 1 })
    }

    /// One update, or a step that had to be skipped.
    fn update(
        &mut self,
        outputs: Option<&mut Outputs>,
        samples: &[Sample],
        stop: impl Fn() -> bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<StepReport>> {
        let updated = memory::guard(|| self.trainer.update(samples, stop));
        let updated = updated.map_err(|failure| {
            let beside = if self.trainer.keeps_vae() { bytes_of(&self.base) } else { 0.0 };
            failure.explain(&self.config, self.recipe.stage, (&self.trainer.weights, beside), self.trainer.device())
        })?;
        let Some(report) = updated else { return Ok(None) };
        if report.outcome == Outcome::Skipped {
            self.skipped(&report, outputs, samples, observer)?;
        }
        Ok(Some(report))
    }

    /// Writes down the clips of a step that was skipped; too many such steps in a row are the end.
    fn skipped(
        &self,
        report: &StepReport,
        outputs: Option<&mut Outputs>,
        samples: &[Sample],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let StepReport { step, loss, grad_norm, .. } = *report;
        let clips = self.comm.gather(bad_step::clips(samples))?.concat();
        let dump = self.comm.decide(|| {
            let folder = outputs.as_deref().expect("the first process has the files").folder.root();
            bad_step::write(folder, report, self.config.global_seed, &clips)
        })?;
        observer.note(&format!(
            "step {step}: loss {loss} and gradient norm {grad_norm} are not both finite; the update is skipped, its clips are listed in {}",
            dump.display()
        ));
        let in_a_row = self.trainer.bad_steps();
        if in_a_row < self.config.max_bad_steps {
            return Ok(());
        }
        let sound = self.comm.decide(|| {
            let outputs = outputs.expect("the first process has the files");
            outputs.settle(observer)?;
            checkpoint::newest_before(&outputs.folder.checkpoints(), self.trainer.updated())
        })?;
        Err(Diverged { in_a_row, step, dump, sound }.into())
    }

    fn loader(&self) -> Result<Loader> {
        self.loader_at(self.trainer.step() as u64 * self.config.clips_per_step() as u64)
    }

    /// This process's share of the stream from `position` on.
    fn loader_at(&self, position: u64) -> Result<Loader> {
        let (data, comm) = (Arc::clone(&self.dataset), &self.comm);
        let (seed, threads) = (self.config.global_seed, self.config.num_workers);
        let loader = Loader::sharded(data, seed, position, threads, comm.rank(), comm.world())?;
        Ok(loader.from_cache(self.cache.clone()))
    }

    /// The stream from its beginning, as one process alone has it.
    fn whole_stream(&self) -> Result<Loader> {
        let (seed, threads) = (self.config.global_seed, self.config.num_workers);
        Ok(Loader::new(Arc::clone(&self.dataset), seed, 0, threads)?.from_cache(self.cache.clone()))
    }

    fn dist_check_due(&self, step: i64) -> bool {
        let steps = self.config.dist_check_steps;
        steps > 0 && step % steps == 0
    }
}

/// What signals ask for.
struct Wishes {
    stop: Option<Signal>,
    save: bool,
}

/// What `make` gives in the first process; the others have none. An error there is one in all.
fn first<T>(comm: &Comm, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let mut made = None;
    comm.decide(|| {
        made = Some(make()?);
        Ok(())
    })?;
    Ok(made)
}

/// Bytes of a frozen VAE in float32.
fn bytes_of(base: &Base) -> f64 {
    let Ok(tensors) = base.vae_tensors() else { return 0.0 };
    let values = tensors.names().filter_map(|name| tensors.shape(name)).map(|shape| shape.iter().product::<i64>());
    values.sum::<i64>() as f64 * 4.0
}

/// What is trained must be what is exported.
fn check_exportable(stage: Stage, trainer: &Trainer) -> Result<()> {
    let foreign = trainer.weights.trained.keys().find(|name| !name.contains("motion_modules."));
    match foreign {
        Some(name) if stage == Stage::Motion => bail!(
            "trainable_modules: `{name}` would be trained and is no part of the motion module that is exported; \
             name parts of motion modules only, such as `motion_modules.`"
        ),
        _ => Ok(()),
    }
}

/// The next clips, one by one, so that a signal need not wait for all of them; none when it came.
fn batch(loader: &mut Loader, clips: usize, stop: impl Fn() -> bool) -> Result<Option<Vec<Sample>>> {
    let mut samples = Vec::new();
    while samples.len() < clips {
        if stop() {
            return Ok(None);
        }
        samples.append(&mut loader.next_batch(1)?);
    }
    Ok(Some(samples))
}

pub(super) fn check_size(config: &Config, base: &Base) -> Result<()> {
    let (size, scale) = (config.train_data.sample_size, base.vae.downscale() as usize);
    if size.height % scale != 0 || size.width % scale != 0 {
        bail!(
            "train_data.sample_size is {size}; both sides must be divisible by {scale}, such as {}x{}",
            (size.width / scale).max(1) * scale,
            (size.height / scale).max(1) * scale
        );
    }
    Ok(())
}
