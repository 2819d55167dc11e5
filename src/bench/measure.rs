//! Clocks, and what a process took.

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tch::Device;

use crate::native::cuda_peak;

/// Waits until `device` has done what it was given.
pub fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// What `body` gives, how long it took, and how much processor time went into each second of it: 2 is two busy cores. Much
/// less than there are threads means that something else was running, and the time says little.
pub fn timed<T>(body: impl FnOnce() -> T) -> (T, f64, f64) {
    let (start, busy) = (Instant::now(), processor_time());
    let value = body();
    let wall = start.elapsed().as_secs_f64();
    (value, wall, (processor_time() - busy) / wall)
}

fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Moments of one piece of work, each when the device had done what came before.
#[derive(Debug)]
pub struct Marks {
    device: Device,
    moments: Vec<Instant>,
}

impl Marks {
    /// The first moment is now.
    pub fn start(device: Device) -> Marks {
        finish(device);
        Marks { device, moments: vec![Instant::now()] }
    }

    /// Another one.
    pub fn mark(&mut self) {
        finish(self.device);
        self.moments.push(Instant::now());
    }

    /// Seconds between them.
    pub fn seconds(&self) -> Vec<f64> {
        self.moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    /// From the first to the last.
    pub fn total(&self) -> f64 {
        self.seconds().iter().sum()
    }
}

/// The middle one, or the mean of the two in the middle. There is at least one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The smallest and the largest.
pub fn spread(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max))
}

/// To `digits` behind the point.
pub fn round(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// The fields of a list of steps that each compute `step_tflop`.
pub fn steps(seconds: &[f64], step_tflop: f64) -> Value {
    let (median, (min, max)) = (median(seconds), spread(seconds));
    json!({
        "step_s_median": round(median, 5),
        "step_s_min": round(min, 5),
        "step_s_max": round(max, 5),
        "step_tflop": round(step_tflop, 4),
        "tflop_per_s": round(step_tflop / median, 3),
    })
}

/// Both of two objects.
pub fn with(mut first: Value, second: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut first, second) {
        fields.extend(more);
    }
    first
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Seconds since this process started, to a hundredth; since the machine's clock cannot be read, never.
pub fn since_start() -> Option<f64> {
    const TICKS: f64 = 100.0; // of /proc, whatever the kernel's own
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may hold anything; the start is the 20th word after it.
    let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    Some(uptime - started / TICKS)
}

/// The most memory that this process had in use, and CUDA's tensors since the peaks were reset.
pub fn memory(device: Device) -> Value {
    let gib = |bytes: i64| round(bytes as f64 / f64::from(1 << 30), 3);
    let resident = gib(peak_resident().unwrap_or(0));
    match device {
        Device::Cuda(index) => {
            let peak = cuda_peak(index);
            json!({
                "peak_mem_gib": gib(peak.allocated),
                "peak_reserved_gib": gib(peak.reserved),
                "peak_rss_gib": resident,
            })
        }
        _ => json!({"peak_mem_gib": resident, "peak_rss_gib": resident}),
    }
}

/// Bytes, files that are mapped included, as the kernel counts them for `getrusage`.
fn peak_resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<i64>().ok()?)
}

/// Processes that wanted a core, mean over the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
