//! How fast clips are read, from files to the numbers that a model sees: what `scripts/bench_decode.py` does with decord and PyAV.

use std::time::Instant;

use anyhow::Result;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::measure::{load_average, median, round, spread};
use crate::data::{Dataset, choice};
use crate::machine::processor;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Clips that are read of each video: they start at evenly spread frames, so that any other program can do the same work.
    pub starts: usize,
    /// Threads that read, each its own clip.
    pub threads: usize,
    /// Rounds over all clips that are not counted.
    pub warmup: usize,
    /// Rounds that are.
    pub repeat: usize,
}

impl Case {
    /// What cannot be measured, and why.
    pub fn check(&self) -> Result<(), String> {
        let counts = [("--starts", self.starts), ("--threads", self.threads), ("--repeat", self.repeat)];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((flag, _)) => Err(format!("{flag} 0: at least 1 is expected")),
            None => Ok(()),
        }
    }
}

/// Reads every video of `dataset` at `case.starts` places, in rounds; the fields of a report.
///
/// # Errors
/// The first clip that cannot be read: a comparison needs all of them.
pub fn run(dataset: &Dataset, case: Case) -> Result<Map<String, Value>> {
    let Case { starts, threads, warmup, repeat } = case;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let jobs: Vec<(usize, usize)> = (0..dataset.len()).flat_map(|item| (0..starts).map(move |k| (item, k))).collect();
    let mut seconds = Vec::new();
    for turn in 0..warmup + repeat {
        let start = Instant::now();
        pool.install(|| jobs.par_iter().try_for_each(|&(item, k)| read(dataset, item, k, starts)))?;
        if turn >= warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let rates: Vec<f64> = seconds.iter().map(|seconds| jobs.len() as f64 / seconds / threads as f64).collect();
    let (slowest, fastest) = spread(&rates);
    let config = dataset.config();
    let fields = json!({
        "peer": "animatediff",
        "version": env!("CARGO_PKG_VERSION"),
        "mode": "data",
        "videos": dataset.len(),
        "clips": jobs.len(),
        "frames": config.sample_n_frames,
        "stride": config.sample_stride,
        "size": config.sample_size,
        "threads": threads,
        "runs": repeat,
        "clips_per_s": round(median(&rates) * threads as f64, 3),
        "clips_per_s_per_core": round(median(&rates), 3),
        "clips_per_s_per_core_min": round(slowest, 3),
        "clips_per_s_per_core_max": round(fastest, 3),
        "round_all_s": seconds,
        "processor": processor(),
        "loadavg1": load_average(),
    });
    Ok(fields.as_object().cloned().unwrap_or_default())
}

/// Reads the clip number `k` of `starts` of a video.
fn read(dataset: &Dataset, item: usize, k: usize, starts: usize) -> Result<()> {
    let config = dataset.config();
    let needed = (config.sample_n_frames - 1) * config.sample_stride + 1;
    let sample = dataset.read(item, |available| {
        let length = available.min(needed);
        let start = (2 * k + 1) * (available - length + 1) / (2 * starts);
        let frames = choice::spread(start, start + length - 1, config.sample_n_frames);
        Ok(choice::Choice { frames, flip: false })
    })?;
    std::hint::black_box(&sample.pixels);
    Ok(())
}
