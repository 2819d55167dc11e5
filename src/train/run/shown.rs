//! What a run shows along the way: the validation prompts, or what a VAE makes of the last batch.

use anyhow::Result;

use super::{Observer, Run};
use crate::{
    data::Sample,
    train::{
        Stage,
        memory::{self, Failure},
        outputs::Outputs,
        preview,
        trainer::Network,
    },
};

impl Run {
    /// Shows what was due at the step resumed from, where the run ended before it was shown; `false` if stopped meanwhile.
    pub(super) fn catch_up(
        &mut self,
        outputs: &mut Outputs,
        stop: impl Fn() -> bool,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let step = self.trainer.step();
        if step == 0 || self.shown >= step || !self.validation_due(step) {
            return Ok(true);
        }
        let samples = match self.trainer.network() {
            Network::Denoiser(_) => Vec::new(),
            Network::Autoencoder(_) => {
                let before = (step as u64 - 1) * self.config.clips_per_step() as u64;
                self.loader_at(before)?.next_batch(self.config.clips_per_rank())?
            }
        };
        self.show(outputs, &samples, stop, observer)
    }

    /// What the model makes of the validation prompts, or of the pictures of the last batch; `false` if stopped meanwhile.
    pub(super) fn show(
        &mut self,
        outputs: &mut Outputs,
        samples: &[Sample],
        stop: impl Fn() -> bool,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let (folder, board, step) = (outputs.folder.samples(), &mut outputs.board, self.trainer.step());
        let averages = self.trainer.averages();
        let shown = memory::guard(|| match self.trainer.network() {
            Network::Denoiser(denoiser) => {
                preview::validation(&folder, board, &self.config, self.recipe.frames, (step, denoiser), stop)
            }
            Network::Autoencoder(autoencoder) => {
                preview::reconstructions(&folder, board, (step, autoencoder), samples).map(|()| true)
            }
        });
        drop(averages);
        let shown = match shown {
            Ok(shown) => shown,
            // Training needs no pictures, and may have the memory that they lack.
            Err(Failure::Lack(lack)) => {
                observer.note(&format!(
                    "warning: step {step} is not shown: {lack}; training goes on. To do without, remove validation_steps, and \
                     sample from the export"
                ));
                return Ok(true);
            }
            Err(Failure::Other(error)) => return Err(error),
        };
        if shown {
            self.shown = step;
            observer.wrote("samples", &folder.join(format!("sample-{step}")));
        }
        Ok(shown)
    }

    pub(super) fn validation_due(&self, step: i64) -> bool {
        let steps = self.config.validation_steps;
        let something = self.recipe.stage == Stage::Vae || !self.config.validation_data.prompts.is_empty();
        something && ((steps > 0 && step % steps == 0) || self.config.validation_steps_tuple.contains(&step))
    }
}
