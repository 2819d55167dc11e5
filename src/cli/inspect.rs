//! `animatediff inspect`: what a weight file holds.

use std::path::PathBuf;

use anyhow::Result;

use crate::inspect::{Report, Unknown, inspect};

const EXAMPLES: &str = "\
Examples:
  animatediff init --preset tiny base/
  animatediff inspect base/
  animatediff inspect base/unet --json
  animatediff inspect base/vae --keys";

/// Say what a weight file holds
///
/// What it is, in whose names, for which base, whether it is whole and finite, and what would mend it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File or folder of weights, or name on the Hub (hf:owner/repo/file)
    file: PathBuf,
    /// List every tensor with its type and shape
    #[arg(long)]
    keys: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// How many names of a list are shown.
const SHOWN: usize = 5;

/// Prints a report for the file, or for every part of a base's folder.
pub fn run(args: &Args) -> Result<()> {
    let mut reports = inspect(&args.file)?;
    if args.json {
        if !args.keys {
            reports.iter_mut().for_each(|report| report.keys.clear());
        }
        let document = match &reports[..] {
            [one] => serde_json::to_value(one)?,
            all => serde_json::to_value(all)?,
        };
        println!("{document:#}");
        return Ok(());
    }
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print(report);
        if args.keys {
            for key in &report.keys {
                println!("{} {} {:?}", printable(&key.name), key.dtype, key.shape);
            }
        }
    }
    Ok(())
}

fn print(report: &Report) {
    println!("{}", report.file);
    let line = |name: &str, value: &str| println!("{name:<12}{}", printable(value));
    let optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            line(name, value);
        }
    };
    line("kind", &report.kind);
    optional("names", &report.dialect);
    optional("version", &report.version);
    optional("rank", &report.rank);
    optional("alpha", &report.alpha);
    optional("fits", &report.fits);
    line("file", &report.container);
    line("tensors", &report.tensors.to_string());
    line("parameters", &grouped(report.parameters));
    let types: Vec<String> = report.types.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    line("types", &types.join(", "));
    line("hash", &report.hash);
    let unknown = |Unknown { name, nearest }: &Unknown| match nearest {
        Some(nearest) => format!("{name} (near {nearest})"),
        None => name.clone(),
    };
    list("unknown", &report.unknown.iter().map(unknown).collect::<Vec<_>>());
    list("missing", &report.missing);
    list("misshapen", &report.misshapen);
    list("not finite", &report.not_finite);
    report.notes.iter().for_each(|note| line("note", note));
    optional("use", &report.usage);
    optional("mend", &report.mend);
    for (key, value) in &report.metadata {
        line("metadata", &format!("{}: {}", shortened(key), shortened(value)));
    }
}

/// The first of many, and how many there are.
fn list(name: &str, values: &[String]) {
    for (index, value) in values.iter().take(SHOWN).enumerate() {
        let name = if index == 0 { format!("{name} {}", values.len()) } else { String::new() };
        println!("{name:<12}{}{}", if name.len() >= 12 { " " } else { "" }, shortened(value));
    }
    if values.len() > SHOWN {
        println!("{:<12}… and {} more: --json lists all", "", values.len() - SHOWN);
    }
}

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shortened(text: &str) -> String {
    let line = printable(text);
    if line.chars().count() > 120 { line.chars().take(119).collect::<String>() + "…" } else { line }
}

/// `859,520,964`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}
