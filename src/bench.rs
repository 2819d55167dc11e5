//! How fast the program is, on random weights: the same work, measured in the same way and reported in the same fields, as
//! `scripts/peer_bench.py` does with diffusers. Prints nothing.
//!
//! [`sample`], [`train`], [`decode`] and [`startup`] each do one kind of work, through the code that users' commands go
//! through, and so does [`data`], which reads clips, and [`index`], which makes a list of many; [`flops`] counts what they
//! compute, [`measure`] reads the clocks.

pub mod data;
pub mod decode;
pub mod flops;
pub mod index;
pub mod measure;
pub mod sample;
pub mod startup;
pub mod train;
mod world;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use crate::{
    device::Precision,
    machine::{Machine, processor},
    model::{
        sizes::Sizes,
        unet::{self, motion},
    },
    native::{reset_cuda_peak, torch_version},
    tokenizer::Vocabulary,
};

/// How large the networks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// A few megabytes.
    Tiny,
    /// Stable Diffusion 1.5.
    Sd15,
}

/// Which motion module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// With a module in the middle block.
    V2,
    /// Without.
    V3,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// Size of the networks.
    pub scale: Scale,
    /// Architecture of the motion module.
    pub motion: Version,
    /// Side of the frames, in pixels.
    pub size: i64,
    /// Frames per clip.
    pub frames: i64,
    /// Clips together.
    pub batch: i64,
    /// Denoising steps of a clip, or updates.
    pub steps: i64,
    /// Whether samples are guided: two rows of the batch per clip.
    pub guided: bool,
    /// Rounds that are not counted.
    pub warmup: usize,
    /// Rounds that are.
    pub repeat: usize,
    /// Where.
    pub device: Device,
    /// In what.
    pub kind: Kind,
    /// Of weights and noise.
    pub seed: i64,
    /// A word of the caller's that goes into the report.
    pub tag: String,
}

impl Version {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Version::V2 => "v2",
            Version::V3 => "v3",
        }
    }
}

impl Scale {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Scale::Tiny => "tiny",
            Scale::Sd15 => "sd15",
        }
    }

    /// Sizes of the base.
    pub fn sizes(self) -> Sizes {
        match self {
            Scale::Tiny => Sizes::tiny(Vocabulary::bundled().size()),
            Scale::Sd15 => Sizes::default(),
        }
    }
}

impl Case {
    /// The motion module's architecture, with as many heads as the base has.
    pub fn architecture(&self) -> motion::Config {
        let mut config = match self.motion {
            Version::V2 => motion::Config::v2(),
            Version::V3 => motion::Config::v3(),
        };
        if let unet::Heads::All(heads) = self.scale.sizes().unet.attention_head_dim {
            config.motion_module_kwargs.num_attention_heads = heads;
        }
        config
    }

    /// What cannot be measured, and why.
    pub fn check(&self) -> Result<(), String> {
        let downscale = self.scale.sizes().vae.downscale();
        if self.size < downscale || self.size % downscale != 0 {
            return Err(format!("--size {}: a multiple of {downscale} is expected", self.size));
        }
        let counts = [("--frames", self.frames), ("--batch", self.batch), ("--steps", self.steps)];
        match counts.into_iter().chain([("--repeat", self.repeat as i64)]).find(|(_, count)| *count < 1) {
            Some((flag, count)) => Err(format!("{flag} {count}: at least 1 is expected")),
            None => Ok(()),
        }
    }

    /// Counts peaks of CUDA memory from here: what the first rounds needed besides is not what a long run needs.
    fn settled(&self) {
        if let Device::Cuda(index) = self.device {
            reset_cuda_peak(index);
        }
    }
}

/// What was measured: one JSON object, with the peer's names. Times are in seconds, memory in GiB.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Report(Map<String, Value>);

impl Report {
    /// What `case` was, then `measured`, then what the process took.
    fn new(mode: &str, case: &Case, measured: Value) -> Report {
        let machine = Machine::this(case.device);
        let mut fields = Map::new();
        let told = json!({
            "peer": "animatediff",
            "version": env!("CARGO_PKG_VERSION"),
            "mode": mode,
            "device": if case.device.is_cuda() { "cuda" } else { "cpu" },
            "dtype": Precision::of(case.kind).name(),
            "scale": case.scale,
            "size": case.size,
            "frames": case.frames,
            "batch": case.batch,
            "cfg": case.guided,
            "motion": case.motion,
            "torch": torch_version(),
            "threads": machine.threads,
            "gpu": case.device.is_cuda().then_some(machine.device),
            "processor": processor(),
            "tag": case.tag,
        });
        for part in [told, measured, measure::memory(case.device), json!({"loadavg1": measure::load_average()})] {
            if let Value::Object(part) = part {
                fields.extend(part);
            }
        }
        Report(fields)
    }

    /// The fields in order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}
