//! What an index of many clips costs: to make, to open, in memory, and for one item.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::measure::{median, round, spread};
use crate::data::{Config, Dataset, choice, index};
use crate::files::{self, disk::Output};

/// Items of one round.
const ITEMS: u64 = 20_000;
const ROUNDS: u64 = 5;

const WORDS: [&str; 32] = [
    "aerial",
    "view",
    "of",
    "the",
    "city",
    "at",
    "night",
    "young",
    "woman",
    "walking",
    "in",
    "slow",
    "motion",
    "green",
    "screen",
    "background",
    "with",
    "water",
    "drops",
    "on",
    "a",
    "close-up",
    "traffic",
    "timelapse",
    "sunset",
    "over",
    "mountains",
    "happy",
    "family",
    "and",
    "forest",
    "4k",
];

/// Makes a table of `rows` clips as WebVid's in `folder`, with captions of some hundred letters, and its index; then measures. Both
/// files stay there.
pub fn run(rows: usize, folder: &Path) -> Result<Map<String, Value>> {
    let (csv, out) = (folder.join("clips.csv"), folder.join("clips.index"));
    files::write_atomic(&csv, |file| write_table(rows, file))?;
    let settled = reset_peak().and_then(|()| status("VmRSS"));
    let start = Instant::now();
    let made = index::build(&csv, &out)?;
    let build = start.elapsed().as_secs_f64();
    let build_peak = status("VmHWM");
    let config = Config { csv_path: Some(out), video_folder: Some(folder.into()), ..Config::default() };
    let start = Instant::now();
    let dataset = Dataset::open(&config)?;
    let open = start.elapsed().as_secs_f64();
    let open_resident = status("VmRSS");
    let micros: Vec<f64> = (0..ROUNDS).map(|round| items(&dataset, round)).collect::<Result<_>>()?;
    let fields = json!({
        "mode": "index",
        "rows": rows,
        "csv_bytes": fs::metadata(&csv)?.len(),
        "index_bytes": made.bytes,
        "build_s": round(build, 2),
        "build_peak_rss_mb": build_peak?,
        "rss_before_mb": settled?,
        "open_s": round(open, 4),
        "open_rss_mb": open_resident?,
        "items_rss_mb": status("VmRSS")?,
        "item_us_median": round(median(&micros), 3),
        "item_us_min": round(spread(&micros).0, 3),
        "item_us_max": round(spread(&micros).1, 3),
    });
    Ok(fields.as_object().cloned().unwrap_or_default())
}

/// Microseconds for which item stands at a position, its file and its caption.
fn items(dataset: &Dataset, round: u64) -> Result<f64> {
    let start = Instant::now();
    let mut letters = 0;
    for position in round * ITEMS..(round + 1) * ITEMS {
        let row = dataset.row(dataset.item_at(0, position))?;
        letters += row.file.len() + row.caption.len();
    }
    std::hint::black_box(letters);
    Ok(start.elapsed().as_secs_f64() * 1e6 / ITEMS as f64)
}

fn write_table(rows: usize, out: &mut BufWriter<Output>) -> Result<()> {
    let mut random = choice::random_of(0, 0, *b"webvids\0");
    writeln!(out, "videoid,contentUrl,duration,page_dir,name")?;
    for row in 0..rows {
        let id = 1_000_000 + 97 * row as u64;
        let caption = caption(&mut random);
        let (seconds, page) = (choice::below(&mut random, 60), choice::below(&mut random, 500));
        writeln!(
            out,
            "{id},https://host.example/videos/{id}/preview/stock-footage-{id}.mp4,PT00H00M{seconds:02}S,{page:06}_{:06},\"{caption}\"",
            page + 50
        )?;
    }
    Ok(())
}

/// Words of 60 to 140 letters in all.
fn caption(random: &mut ChaCha8Rng) -> String {
    let length = 60 + choice::below(random, 80) as usize;
    let mut text = String::with_capacity(160);
    while text.len() < length {
        text.push_str(WORDS[choice::below(random, WORDS.len() as u64) as usize]);
        text.push_str(if choice::below(random, 12) == 0 { ", " } else { " " });
    }
    text.trim_end().to_owned()
}

/// Has the kernel count the peak of resident memory from here.
fn reset_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("this kernel does not reset the peak of memory")
}

/// Megabytes that the kernel tells under `name`.
fn status(name: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(name)).context("this kernel does not count memory")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(round(kilobytes * 1024.0 / 1e6, 1))
}
