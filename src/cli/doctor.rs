//! `animatediff doctor`: what this machine and this build can do.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{
    files,
    machine::{gpus, processor},
    native::{Cuda, libtorch_folder, load_cuda, nccl_library, torch_version},
    video::ffmpeg_report,
};

const EXAMPLES: &str = "\
Examples:
  animatediff doctor
  animatediff doctor --json";

/// Say what this machine and this build can do; exits 1 when something needed is missing
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Prints the findings; 1 when something needed is missing.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut findings = Map::new();
    let mut problems = Vec::new();
    let mut add = |key: &str, value: Value| findings.insert(key.into(), value);
    add("version", json!(env!("CARGO_PKG_VERSION")));
    match libtorch_folder() {
        Some(folder) => add("libtorch", json!(format!("built for {}, found in {}", torch_version(), folder.display()))),
        None => {
            problems.push("libtorch was not found in this process".to_owned());
            None
        }
    };
    add("processor", json!(processor()));
    add("threads", json!(tch::get_num_threads()));
    add("nvidia driver", json!(driver().unwrap_or_else(|| "none".into())));
    add(
        "cuda",
        match load_cuda() {
            Cuda::Ready { devices } => json!(format!("{devices} devices: {}", gpus().join(", "))),
            Cuda::Unavailable(reason) => json!(format!("not used: {reason}")),
        },
    );
    let nccl = nccl_library().map(|path| format!("NCCL, by {}", path.display()));
    add("between GPUs", json!(nccl.unwrap_or_else(|reason| format!("nothing: {reason}"))));
    let device = match load_cuda() {
        Cuda::Ready { .. } => "cuda:0, weights in bf16",
        Cuda::Unavailable(_) => "cpu, weights in fp32",
    };
    add("device by default", json!(device));
    let ffmpeg = ffmpeg_report();
    let libraries: Vec<String> = ffmpeg.libraries.iter().map(|(name, version)| format!("{name} {version}")).collect();
    add("ffmpeg", if ffmpeg.built { json!(libraries.join(", ")) } else { json!("not in this build") });
    let written =
        [("mp4 (libx264)", ffmpeg.libx264), ("webp (libwebp_anim)", ffmpeg.libwebp_anim), ("gif", true), ("png", true)];
    let formats: Vec<&str> = written.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    add("writes", json!(formats.join(", ")));
    if ffmpeg.built && !ffmpeg.libx264 {
        problems.push("FFmpeg has no libx264 encoder, so no MP4 can be written: install it, or write .gif".into());
    }
    let cache = cache_folder();
    add("cache folder", json!(cache.display().to_string()));
    let space = files::free_space(&existing(&cache)).map_or("unknown".into(), gigabytes);
    add("free disk there", json!(space));
    add("free disk here", json!(files::free_space(std::path::Path::new(".")).map_or("unknown".into(), gigabytes)));
    add("memory", json!(memory()));
    add("problems", json!(problems));
    if args.json {
        println!("{:#}", Value::Object(findings));
    } else {
        print_text(&findings);
    }
    Ok(ExitCode::from(u8::from(!problems.is_empty())))
}

fn print_text(findings: &Map<String, Value>) {
    for (key, value) in findings.iter().filter(|(key, _)| *key != "problems") {
        println!("{key:<18} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let problems = findings["problems"].as_array().expect("a list");
    for problem in problems {
        println!("problem            {}", problem.as_str().unwrap_or_default());
    }
    if problems.is_empty() {
        println!("nothing that is needed is missing");
    }
}

fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    text.lines().next().map(str::to_owned)
}

/// Where `scripts/setup.sh` keeps libtorch.
fn cache_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ANIMATEDIFF_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("animatediff")
    })
}

/// The nearest folder above that exists.
fn existing(path: &std::path::Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(std::path::Path::new("/")).to_owned()
}

fn memory() -> String {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit);
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let available = available.map_or("unknown".into(), |kib| gigabytes(1024 * kib));
    format!("{} in all, {available} available", gigabytes(info.totalram * unit))
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
