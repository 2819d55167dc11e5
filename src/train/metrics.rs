//! `metrics.jsonl`: one JSON object per step, each with its `step` first. What the numbers mean is the training loop's business.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::files::{self, Written, failed};

/// The file, open for appending.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Bytes that hold whole rows.
    length: u64,
    last_step: i64,
}

impl Metrics {
    /// Starts an empty file.
    ///
    /// # Errors
    /// When there is one already, or it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| failed(path, "create", e))?;
        Ok(Self { path: path.to_owned(), file, length: 0, last_step: i64::MIN })
    }

    /// Opens the file of a run that is resumed after `step`: rows of later steps, and a torn last row, are dropped (atomically, and
    /// counted in the log), so that steps taken again are not there twice. A file that is missing or ends before `step` is warned about.
    ///
    /// # Errors
    /// When the file cannot be read or rewritten, or holds a row that is none; it is then untouched.
    pub fn resume(path: &Path, step: i64) -> Result<Self> {
        let kept = rows_up_to(path, step)?;
        let last_step = kept.last().map_or(i64::MIN, |row| row.0);
        if last_step < step && step > 0 {
            tracing::warn!("{}: rows after step {} up to {step} are missing", path.display(), last_step.max(0));
        }
        files::write_atomic(path, |out| {
            kept.iter().try_for_each(|(_, line)| writeln!(out, "{line}"))?;
            Ok(())
        })?;
        let mut file = File::options().write(true).open(path).map_err(|e| failed(path, "open", e))?;
        let length = file.seek(SeekFrom::End(0)).map_err(|e| failed(path, "open", e))?;
        Ok(Self { path: path.to_owned(), file, length, last_step })
    }

    /// Appends the row of `step`: `row` must serialize to an object without a `step`. Numbers that JSON lacks (NaN, infinities)
    /// become null. The row is with the operating system when this returns; a sync makes it survive a power cut.
    ///
    /// # Errors
    /// When `step` is not later than the row before, or the file cannot be written; no part of the row is then left in it.
    pub fn append(&mut self, step: i64, row: &impl Serialize) -> Result<()> {
        if step <= self.last_step {
            bail!("{}: a row of step {step} after one of step {}", self.path.display(), self.last_step);
        }
        let line = line(step, row)?;
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.cut().map_err(|e| failed(&self.path, "cut off the half-written row", e))?;
            return Err(failed(&self.path, "write", error));
        }
        self.length += line.len() as u64;
        self.last_step = step;
        Ok(())
    }

    /// The step of the last row; before all steps where there is none.
    pub fn last_step(&self) -> i64 {
        self.last_step
    }

    /// The file, to be synced by another thread: a checkpoint that is saved after that counts on no row that can be lost.
    ///
    /// # Errors
    /// When the process may open no more files.
    pub(crate) fn written(&self) -> Result<Written> {
        Written::new(&self.path, &self.file)
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }
}

fn line(step: i64, row: &impl Serialize) -> Result<String> {
    let Value::Object(values) = serde_json::to_value(row)? else { bail!("a row of metrics must be an object") };
    if values.contains_key("step") {
        bail!("a row of metrics brings its own `step`");
    }
    let mut object = Map::from_iter([("step".to_owned(), step.into())]);
    object.extend(values);
    Ok(serde_json::to_string(&object)? + "\n")
}

/// The rows that stay, with their steps.
fn rows_up_to(path: &Path, step: i64) -> Result<Vec<(i64, String)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| failed(path, "open", e))?,
    };
    let mut input = BufReader::new(file);
    let (mut kept, mut dropped) = (Vec::new(), 0);
    for number in 1.. {
        let mut bytes = Vec::new();
        if input.read_until(b'\n', &mut bytes).map_err(|e| failed(path, "read", e))? == 0 {
            break;
        }
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        match parse(&bytes) {
            Some(row) if whole && row.0 <= step => kept.push(row),
            Some(_) => dropped += 1,
            None if !whole => dropped += 1,
            None => bail!("{}:{number}: this is no row of metrics (a JSON object with a `step`)", path.display()),
        }
    }
    if dropped > 0 {
        tracing::info!("{}: dropped {dropped} rows after step {step}", path.display());
    }
    Ok(kept)
}

fn parse(bytes: &[u8]) -> Option<(i64, String)> {
    let row: Value = serde_json::from_slice(bytes).ok()?;
    Some((row.get("step")?.as_i64()?, String::from_utf8(bytes.to_vec()).ok()?))
}

/// The rows of a file, for reports.
///
/// # Errors
/// When the file cannot be read; a torn last row counts as absent.
pub fn read(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let text = fs::read_to_string(path).map_err(|e| failed(path, "read", e))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(|e| failed(path, "parse", e))).collect()
}
