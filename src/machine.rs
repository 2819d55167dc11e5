//! What the numbers were made on.

use std::{fs, thread};

use serde::Serialize;
use tch::Device;

/// A machine, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Model of the CPU.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Threads that libtorch computes with.
    pub threads: i32,
    /// `cpu`, or `cuda:n` with the GPU's model.
    pub device: String,
}

impl Machine {
    /// This one, computing on `device`.
    pub fn this(device: Device) -> Machine {
        let device = match device {
            Device::Cuda(index) => {
                format!("cuda:{index} {}", gpus().get(index).map_or("", String::as_str)).trim().to_owned()
            }
            _ => "cpu".into(),
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Machine { processor: processor(), cores, threads: tch::get_num_threads(), device }
    }
}

/// The CPU's model.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or("unknown".into(), |(_, name)| name.trim().to_owned())
}

/// The models of the GPUs, as the driver names them.
pub fn gpus() -> Vec<String> {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let model = |text: String| Some(text.lines().find(|line| line.starts_with("Model:"))?[6..].trim().to_owned());
    folders.filter_map(|folder| model(fs::read_to_string(folder.path().join("information")).ok()?)).collect()
}
