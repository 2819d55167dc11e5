//! Saves beside the training: it waits for a copy of the tensors only, and a thread writes that.
//!
//! One save is under way at a time, and one copy in memory: each save uses the buffers of the one before.

use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tch::{Device, Tensor, no_grad};

use super::{Checkpoint, Groups, Keep, save};
use crate::panics::Panicked;

/// Writes the checkpoints of one folder, of which it is the only writer.
#[derive(Debug)]
pub struct Saver {
    dir: PathBuf,
    /// Memory for a copy on the CPU; with the thread while it writes.
    buffers: Groups,
    writing: Option<Writing>,
    latest: Option<i64>,
}

#[derive(Debug)]
struct Writing {
    step: i64,
    thread: JoinHandle<(Groups, Result<Saved>)>,
}

/// A checkpoint that is on the disk.
#[derive(Debug)]
pub struct Saved {
    /// Its step.
    pub step: i64,
    /// Its folder.
    pub path: PathBuf,
    /// How long the thread wrote.
    pub took: Duration,
}

impl Saver {
    /// For the checkpoints in `dir`, of which `latest` is the newest.
    pub fn new(dir: &Path, latest: Option<i64>) -> Saver {
        Saver { dir: dir.to_owned(), buffers: Groups::new(), writing: None, latest }
    }

    /// Step of the newest checkpoint that is on the disk or on its way there.
    pub fn latest(&self) -> Option<i64> {
        self.writing.as_ref().map(|writing| writing.step).or(self.latest)
    }

    /// Copies the tensors of `checkpoint` and begins to write them: they may change when this returns. `first` is done by
    /// the thread before, and what `keep` does not name is removed after. A save that is under way is waited for, and given.
    ///
    /// # Errors
    /// That of the save before, or when no thread can be had; nothing is then begun.
    pub fn begin(
        &mut self,
        checkpoint: Checkpoint,
        keep: Keep,
        first: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Option<Saved>> {
        let before = self.wait()?;
        let Checkpoint { step, tensors, state } = checkpoint;
        let mut copy = std::mem::take(&mut self.buffers);
        take_over(&tensors, &mut copy);
        let dir = self.dir.clone();
        let write = move || {
            let started = Instant::now();
            let copied = Checkpoint { step, tensors: copy, state };
            let saved = first().and_then(|()| save(&dir, &copied, Some(keep)));
            let saved = saved.map(|path| Saved { step, path, took: started.elapsed() });
            (copied.tensors, saved)
        };
        let thread = Builder::new().name("checkpoint".into()).spawn(write);
        self.writing = Some(Writing { step, thread: thread.context("no thread can be started to save a checkpoint")? });
        Ok(before)
    }

    /// The save that ended since this was last asked, without waiting for one.
    ///
    /// # Errors
    /// That of the save.
    pub fn poll(&mut self) -> Result<Option<Saved>> {
        if self.writing.as_ref().is_some_and(|writing| writing.thread.is_finished()) { self.wait() } else { Ok(None) }
    }

    /// Waits for the save that is under way.
    ///
    /// # Errors
    /// That of the save.
    pub fn wait(&mut self) -> Result<Option<Saved>> {
        let Some(Writing { step, thread }) = self.writing.take() else { return Ok(None) };
        let (buffers, saved) = thread.join().map_err(|panic| {
            anyhow!("the checkpoint of step {step} was not saved: {}", Panicked::of(&*panic).text())
        })?;
        self.buffers = buffers;
        let saved = saved?;
        self.latest = Some(step);
        Ok(Some(saved))
    }
}

impl Drop for Saver {
    /// A save that was begun is finished, whatever ends the run.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.thread.join();
        }
    }
}

/// Makes `buffers` a copy of `tensors` on the CPU, in the memory that is there where it fits.
fn take_over(tensors: &Groups, buffers: &mut Groups) {
    buffers.retain(|stem, _| tensors.contains_key(stem));
    for (stem, group) in tensors {
        let copies = buffers.entry(stem.clone()).or_default();
        copies.retain(|name, copy| group.get(name).is_some_and(|tensor| fits(copy, tensor)));
        for (name, tensor) in group {
            let copy = copies
                .entry(name.clone())
                .or_insert_with(|| Tensor::empty(tensor.size(), (tensor.kind(), Device::Cpu)));
            no_grad(|| copy.copy_(tensor));
        }
    }
}

fn fits(copy: &Tensor, tensor: &Tensor) -> bool {
    copy.kind() == tensor.kind() && copy.size() == tensor.size()
}
