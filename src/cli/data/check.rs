//! `animatediff data check`: what is wrong with a training set, and whether it is still what it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::super::progress::{Progress, say};
use super::super::usage;
use super::source::Source;
use crate::config;
use crate::data::check::list::{Differences, GOOD, LIST, List, Unwanted};
use crate::data::check::mark::{Kind, Mark};
use crate::data::check::{self, Report, Twice};
use crate::data::faults::first_few;
use crate::data::{self, Dataset};
use crate::train::interrupt::{Interrupt, Signal};

pub(super) const EXAMPLES: &str = "\
Examples:
  animatediff data shapes shapes/
  animatediff data check --csv shapes/clips.csv --video-folder shapes/videos \\
      --set train_data.sample_stride=1 -o checked/
  animatediff data check --verify checked/check.json

Train on what is good with
  train_data: {csv_path: checked/good.csv}

Ends with 0 when training can take every clip, and with 1 when there are some
that it cannot; everything else that is told changes nothing about that. With
--verify, 0 means that all is as it was, and 1 that something is not.";

/// Arguments of `animatediff data check`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Check {
    #[command(flatten)]
    source: Source,
    /// Folder for good.csv, a table of the good clips to train on, and check.json, the hashes of all files
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What is not good beside clips that training cannot take
    #[arg(long, value_enum, value_delimiter = ',', default_value = "duplicates", requires = "out")]
    leave_out: Vec<Unwanted>,
    /// Compare the files with this check.json instead: what is changed, missing, new?
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "config", "set", "stage", "videos", "csv", "video_folder", "caption", "out", "leave_out"
    ])]
    verify: Option<PathBuf>,
    /// Print one JSON document, which names all that the text counts
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Reads all clips, or compares all files.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let interrupt = Interrupt::install()?;
        match &self.verify {
            Some(list) => self.compare(list, &interrupt),
            None => self.examine(&interrupt),
        }
    }

    fn examine(&self, interrupt: &Interrupt) -> Result<ExitCode> {
        let config = config::load_data(self.source.stage, self.source.config.as_deref(), &self.source.overrides())?;
        self.check_leave_out(config.sample_n_frames)?;
        // A clip without a caption is something to tell here, and no reason to stop.
        let caption = config.caption.clone().or(config.videos.is_some().then(String::new));
        let config = data::Config { caption, cache: None, ..config };
        let dataset = Dataset::open(&check::from_anywhere(&config))?;
        let mut bar = Progress::new(dataset.len() as u64, "check");
        let told = |done: usize, broken: usize| bar.at(done as u64, format!("{broken} broken"));
        let findings = check::examine_all(&dataset, threads(), told, || interrupt.requested().is_some())?;
        bar.finish();
        let report = Report::new(&dataset, &findings);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", describe(&report));
        }
        if let Some(signal) = interrupt.requested() {
            return Ok(stopped(signal, self.out.is_some()));
        }
        if let Some(folder) = &self.out {
            let list = List::new(&dataset, &findings, &self.leave_out);
            list.write(folder)?;
            match list.has_paths() {
                true => say(&format!("{}: {} good clips; hashes in {LIST}", folder.join(GOOD).display(), list.good())),
                false => {
                    say(&format!("{}: which {} clips are good, and hashes", folder.join(LIST).display(), list.good()))
                }
            }
        }
        Ok(ExitCode::from(u8::from(report.usable < report.clips)))
    }

    /// Refuses wishes that would change nothing.
    fn check_leave_out(&self, sample_n_frames: usize) -> Result<()> {
        let wishes = |what| self.leave_out.contains(&what);
        if wishes(Unwanted::None) && self.leave_out.len() > 1 {
            return Err(usage("--leave-out none leaves nothing out; remove it, or what else is named"));
        }
        if wishes(Unwanted::Cuts) && sample_n_frames == 1 {
            return Err(usage(
                "--leave-out cuts: no cut is within a single frame; remove it, or choose another --stage",
            ));
        }
        Ok(())
    }

    fn compare(&self, path: &Path, interrupt: &Interrupt) -> Result<ExitCode> {
        let list = List::read(path)?;
        let bar = Mutex::new(Progress::new(list.files.len() as u64, "verify"));
        let told = |done: usize| {
            // A bar that another thread is drawing is told of the next file.
            if let Ok(mut bar) = bar.try_lock() {
                bar.at(done as u64, String::new());
            }
        };
        let found = list.verify(threads(), told, || interrupt.requested().is_some())?;
        if let Ok(bar) = bar.into_inner() {
            bar.finish();
        }
        let Some(found) = found else {
            let signal = interrupt.requested().unwrap_or(Signal::Int);
            return Ok(stopped(signal, false));
        };
        if self.json {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else {
            print!("{}", differences(&found));
        }
        Ok(ExitCode::from(u8::from(!found.is_empty())))
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn stopped(signal: Signal, out: bool) -> ExitCode {
    say(if out { "stopped by a signal; nothing was written" } else { "stopped by a signal" });
    ExitCode::from(signal.exit_code() as u8)
}

/// The report as text, a line for each thing.
fn describe(report: &Report) -> String {
    let Report { clips, examined, usable, .. } = report;
    let mut lines = vec![format!("{examined} of {clips} clips read: {usable} can be trained on")];
    for (cause, faults) in &report.broken {
        lines.push(format!("{cause}: {}", faults.len()));
        lines.extend(named(faults.iter().map(|fault| fault.message.clone())));
    }
    lines.push(format!("sizes: {}", histogram(&report.sizes)));
    if !report.rates.is_empty() {
        lines.push(format!("frames per second: {}", histogram(&report.rates)));
    }
    let single = report.sample_n_frames == 1;
    match report.frames {
        _ if single => lines.push("one frame is taken of each clip: lengths, rates and cuts do not matter".into()),
        Some([fewest, median, most]) => lines.push(format!("frames: {fewest} to {most}, median {median}")),
        None => {}
    }
    for (what, twice) in [("names", &report.duplicate_ids), ("contents", &report.duplicate_contents)] {
        lines.push(format!("{what} that are there more than once: {}", twice.len()));
        lines.extend(named(twice.iter().map(places)));
    }
    lines.push(format!("without a caption: {}", report.without_caption.len()));
    lines.extend(named(report.without_caption.iter().cloned()));
    if !single {
        lines.push(format!("with more than one scene: {}", report.cuts.len()));
        let cut = |cut: &check::Cut| format!("{}: cut at frame {}", cut.path.display(), comma(&cut.frames));
        lines.extend(named(report.cuts.iter().map(cut)));
    }
    match &report.marks[..] {
        [] => lines.push("no watermark seen".into()),
        marks => lines.extend(marks.iter().map(mark)),
    }
    lines.join("\n") + "\n"
}

fn mark(mark: &Mark) -> String {
    let Mark { kind, region, bounds, share, clips } = mark;
    let [left, top, right, bottom] = bounds.map(|bound| (100.0 * bound).round());
    let what = match kind {
        Kind::Watermark => "likely a watermark",
        Kind::Border => "likely a border or a banner",
    };
    format!(
        "{what}: {region} ({left} to {right} % of the width, {top} to {bottom} % of the height), in {:.0} % of {clips} clips",
        100.0 * share
    )
}

fn differences(found: &Differences) -> String {
    let Differences { compared, changed, missing, new, captions } = found;
    let mut lines = vec![format!("{compared} files compared")];
    for (what, paths) in [("changed", changed), ("missing", missing), ("new", new), ("other captions", captions)] {
        if !paths.is_empty() {
            lines.push(format!("{what}: {}", paths.len()));
            lines.extend(paths.iter().map(|path| format!("  {}", path.display())));
        }
    }
    if found.is_empty() {
        lines.push("all as it was".into());
    }
    lines.join("\n") + "\n"
}

/// The first few, one to a line; --json has all of them.
fn named(texts: impl ExactSizeIterator<Item = String>) -> impl Iterator<Item = String> {
    first_few(texts).into_iter().map(|text| format!("  {text}"))
}

fn places(twice: &Twice) -> String {
    let paths: Vec<String> = twice.paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn comma(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The most frequent first.
fn histogram(counts: &BTreeMap<String, usize>) -> String {
    let mut counts: Vec<(&String, &usize)> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    counts.iter().map(|(key, count)| format!("{key} ({count})")).collect::<Vec<_>>().join(", ")
}
