//! The files that a run writes as it goes.

use anyhow::Result;
use serde_json::json;

use super::{
    board::Board,
    checkpoint::saver::{Saved, Saver},
    clock::Pace,
    folder::RunFolder,
    metrics::Metrics,
    run::Observer,
    trainer::{Outcome, StepReport},
};

/// The files a run writes as it goes.
pub(super) struct Outputs {
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    pub(super) saver: Saver,
    /// Holds the lock. The last to go, and so after the saver, which ends its write first.
    pub(super) folder: RunFolder,
}

impl Outputs {
    /// Puts a step on the board and in the rows.
    pub(super) fn log(&mut self, report: &StepReport, pace: &Pace) -> Result<()> {
        let StepReport { step, loss, grad_norm, lr, outcome } = *report;
        let mut row = json!({
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "clips_per_second": pace.clips_per_second,
            "waiting_for_data": pace.waiting,
            "waiting_for_saves": pace.saving,
        });
        if outcome != Outcome::Updated {
            row["skipped"] = json!(outcome);
        }
        let finite = [("train_loss", loss), ("lr", lr), ("grad_norm", grad_norm)]
            .into_iter()
            .filter(|(_, value)| value.is_finite());
        for (tag, value) in finite {
            self.board.scalar(tag, step, value)?;
        }
        self.board.scalar("clips_per_second", step, pace.clips_per_second)?;
        // Last: a step whose row is there is on the board, too.
        self.metrics.append(step, &row)
    }

    /// Tells of a save that ended since the last time.
    pub(super) fn tell_saved(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.saver.poll()?.iter().for_each(|saved| tell(saved, observer));
        Ok(())
    }

    /// Waits for the save that is under way.
    pub(super) fn settle(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.saver.wait()?.iter().for_each(|saved| tell(saved, observer));
        Ok(())
    }
}

pub(super) fn tell(saved: &Saved, observer: &mut dyn Observer) {
    tracing::info!("the checkpoint of step {} took {:.3} s to write", saved.step, saved.took.as_secs_f64());
    observer.wrote("checkpoint", &saved.path);
}
