//! `animatediff bench data`: how fast clips are read, and what an index of many costs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::bench;
use crate::cli::usage;
use crate::data::{self, Dataset, Size};

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff bench data --videos shapes/videos --stride 1 --size 64
  animatediff bench data --index-rows 10000
scripts/bench_decode.py runs the same beside decord and PyAV";

/// What `bench data` takes.
#[derive(Debug, clap::Args)]
pub(super) struct DataArgs {
    /// Folder of videos to read
    #[arg(long, required_unless_present_any = ["csv", "index_rows"])]
    videos: Option<PathBuf>,
    /// Table of videos to read, or its index
    #[arg(long, conflicts_with = "videos")]
    csv: Option<PathBuf>,
    /// The folder of the table's files
    #[arg(long, requires = "csv")]
    video_folder: Option<PathBuf>,
    /// Frames per clip
    #[arg(long, default_value_t = 16)]
    frames: usize,
    /// Every so many frames of a video one is taken
    #[arg(long, default_value_t = 4)]
    stride: usize,
    /// Side of the pixels that come out
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Clips of each video, from starts that are evenly spread
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Threads that read, each its own clip
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Rounds that are not measured
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Rounds that are
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Instead of reading videos, make a table of so many rows and its index, and measure that
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["videos", "csv"])]
    index_rows: Option<usize>,
    /// One JSON object on one line instead of text
    #[arg(long)]
    pub json: bool,
}

impl DataArgs {
    /// Measures; the report's fields.
    pub fn run(&self) -> Result<Map<String, Value>> {
        if let Some(rows) = self.index_rows {
            if rows == 0 {
                return Err(usage("--index-rows 0: at least 1 is expected"));
            }
            let folder = tempfile::tempdir().context("a temporary folder cannot be made")?;
            return bench::index::run(rows, folder.path());
        }
        let size = Some(self.size).filter(|size| (1..=8192).contains(size));
        let size = size.ok_or_else(|| usage(format!("--size {}: 1 to 8192 pixels are expected", self.size)))?;
        let dataset = Dataset::open(&data::Config {
            csv_path: self.csv.clone(),
            video_folder: self.video_folder.clone(),
            videos: self.videos.clone(),
            caption: self.videos.is_some().then(String::new),
            sample_size: Size::square(size),
            sample_stride: self.stride,
            sample_n_frames: self.frames,
            ..data::Config::default()
        })?;
        let case =
            bench::data::Case { starts: self.starts, threads: self.threads, warmup: self.warmup, repeat: self.repeat };
        case.check().map_err(usage)?;
        bench::data::run(&dataset, case)
    }
}
