//! Steps without a finite loss or gradient: what they were on, written down.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::trainer::StepReport;
use crate::{data::Sample, files};

/// The folder of such steps in a run's folder.
const FOLDER: &str = "bad_steps";

/// Too many steps in a row were skipped.
#[derive(Debug, thiserror::Error)]
#[error(
    "step {step}: {in_a_row} steps in a row had no finite loss and gradient, and were skipped (their clips are listed in {}). \
     Lower learning_rate, or look at those clips, and {}",
    .dump.parent().unwrap_or(.dump).display(),
    way_on(.sound.as_deref())
)]
pub struct Diverged {
    /// So many.
    pub in_a_row: usize,
    /// The last of them.
    pub step: i64,
    /// What was written of it.
    pub dump: PathBuf,
    /// The newest checkpoint from before the last update: later ones may hold the weights that this came of.
    pub sound: Option<PathBuf>,
}

fn way_on(sound: Option<&Path>) -> String {
    match sound {
        Some(path) => format!("go on with --resume {}, which is from before the last update", path.display()),
        None => "start anew: there is no checkpoint from before the last update".into(),
    }
}

/// What is written of each clip of such a step.
pub fn clips(samples: &[Sample]) -> Vec<Value> {
    let clip = |sample: &Sample| {
        let mut told = json!({"id": sample.id, "caption": sample.caption, "position": sample.position});
        // A clip from a cache has no pixels.
        if !sample.pixels.is_empty() {
            let (finite, others): (Vec<f32>, Vec<f32>) = sample.pixels.iter().partition(|pixel| pixel.is_finite());
            told["largest_pixel"] = finite.into_iter().map(f32::abs).fold(0.0, f32::max).into();
            told["pixels_not_finite"] = others.len().into();
        }
        told
    };
    samples.iter().map(clip).collect()
}

/// Writes `bad_steps/step-NNNNNNNN.json` in the run's folder: what came out of the step on [`clips`], and what is needed to do it
/// again.
pub fn write(run: &Path, report: &StepReport, seed: u64, clips: &[Value]) -> Result<PathBuf> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| files::failed(&folder, "create the folder", error))?;
    let path = folder.join(format!("step-{:08}.json", report.step));
    let content = json!({
        "step": report.step,
        "loss": report.loss.to_string(),
        "grad_norm": report.grad_norm.to_string(),
        "lr": report.lr,
        "global_seed": seed,
        "clips": clips,
    });
    files::write_atomic(&path, |out| Ok(writeln!(out, "{content:#}")?))?;
    Ok(path)
}
