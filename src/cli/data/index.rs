//! `animatediff data index`: a CSV of millions of clips as a file that opens at once.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args as ClapArgs;
use serde_json::json;

use crate::cli::{as_usage, usage};
use crate::data::index;

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data index shapes/clips.csv -o shapes/clips.index

Train on it as on the CSV, with the same clips in the same order:
  train_data: {csv_path: shapes/clips.index, video_folder: shapes/videos}";

/// Arguments of `animatediff data index`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Index {
    /// Table of clips with captions
    csv: PathBuf,
    /// File to write
    #[arg(short, long)]
    out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Index {
    pub(super) fn run(&self) -> Result<()> {
        self.check().map_err(as_usage)?;
        let start = Instant::now();
        let made = index::build(&self.csv, &self.out)?;
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            let mut document = serde_json::to_value(&made)?;
            document["path"] = json!(self.out);
            document["seconds"] = json!(seconds);
            println!("{document:#}");
            return Ok(());
        }
        let megabytes = made.bytes as f64 / 1e6;
        println!("{}: {} clips, {megabytes:.1} MB, made in {seconds:.1} s", self.out.display(), made.clips);
        if made.empty_captions > 0 {
            println!("{} captions are empty", made.empty_captions);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(!index::is_index(&self.csv), "{} is an index already; name the CSV", self.csv.display());
        let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
        ensure!(!same(&self.csv, &self.out), "--out {} is the CSV itself; choose another file", self.out.display());
        if self.out.exists() && !self.overwrite {
            return Err(usage(format!(
                "{} is there; add --overwrite to replace it, or choose another file",
                self.out.display()
            )));
        }
        Ok(())
    }
}
