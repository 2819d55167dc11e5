//! Memory that ran out in a run: what would help, and what each would save.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::{Config, Stage, trainer::Weights};
use crate::{native, nn::Checkpointing, panics};

/// Memory ran out; libtorch's own words.
#[derive(Debug)]
pub struct Lack(String);

/// What a guarded update came to: its result, or that memory ran out.
pub enum Failure {
    /// Memory ran out.
    Lack(Lack),
    /// Something else.
    Other(anyhow::Error),
}

/// `body`, with a lack of memory, which libtorch has as a panic, told from other errors.
pub fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    match panics::catch(body) {
        Ok(result) => result.map_err(Failure::Other),
        Err(panicked) if panicked.is_lack() => Err(Failure::Lack(Lack(panicked.text().to_owned()))),
        Err(panicked) => Err(Failure::Other(panicked.into())),
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "memory ran out ({})", self.0)
    }
}

impl Failure {
    /// As an error, with the settings that would help `stage`; `weights` are those of the networks, and the bytes that are frozen
    /// beside them.
    pub fn explain(
        self,
        config: &Config,
        stage: Stage,
        weights: (&Weights, f64),
        (device, kind): (Device, Kind),
    ) -> anyhow::Error {
        match self {
            Failure::Other(error) => error,
            Failure::Lack(lack) => {
                let levers = levers(config, stage, &Use::of(config, weights, device), kind);
                anyhow::anyhow!("{lack}\nWhat would help:\n{}", levers.join("\n"))
            }
        }
    }
}

/// Bytes that a run takes.
struct Use {
    trained: f64,
    frozen: f64,
    /// Of activations, where that is known.
    activations: Option<f64>,
}

impl Use {
    fn of(config: &Config, (weights, beside): (&Weights, f64), device: Device) -> Use {
        let bytes = |tensors: &BTreeMap<String, Tensor>| -> f64 {
            let here = tensors.values().filter(|tensor| tensor.device() == device);
            here.map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as f64).sum()
        };
        let (trained, frozen) = (bytes(&weights.trained), bytes(&weights.frozen));
        // Weights, gradients, moments, averages.
        let moments = if config.use_8bit_adam { 0.5 } else { 2.0 };
        let fixed = frozen + beside + trained * (2.0 + moments + f64::from(u8::from(config.use_ema)));
        let activations = match device {
            Device::Cuda(index) => Some((native::cuda_peak(index).allocated as f64 - fixed).max(0.0)),
            _ => None,
        };
        Use { trained, frozen, activations }
    }
}

/// One line for each setting that the stage has and that is not yet as sparing as it can be.
fn levers(config: &Config, stage: Stage, used: &Use, kind: Kind) -> Vec<String> {
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let share = |part: f64| match used.activations {
        Some(bytes) => format!("about {}", gib(part * bytes)),
        None => format!("about {:.0} % of the activations", part * 100.0),
    };
    let batch = config.train_batch_size;
    // As many passes as leave as many clips to an update.
    let passes = (2..=batch).find(|passes| batch.is_multiple_of(*passes)).unwrap_or(1);
    let moves = matches!(stage, Stage::Motion | Stage::MotionLora);
    // Shares as measured on SD 1.5 in bf16, four clips of 256x256x16 on an H200: 28.4 GiB in all, 12.0 with `full`. `blocks` saves
    // next to nothing where residual blocks are frozen: they keep little by themselves.
    let all = [
        (
            stage != Stage::Vae && config.gradient_checkpointing != Checkpointing::Full,
            format!("gradient_checkpointing: full ({}, for about 30 % more time)", share(0.8)),
        ),
        (
            batch > 1,
            format!(
                "train_batch_size: {} with gradient_accumulation_steps: {} ({}, the same training)",
                batch / passes,
                config.gradient_accumulation_steps * passes,
                share(1.0 - 1.0 / passes as f64)
            ),
        ),
        (!config.use_8bit_adam, format!("use_8bit_adam: true ({}, rounded updates)", gib(1.5 * used.trained))),
        (config.use_ema, format!("use_ema: false ({})", gib(used.trained))),
        (
            kind == Kind::Float,
            format!("precision: bf16 ({} of weights, and half of the activations)", gib(used.frozen / 2.0)),
        ),
        (moves, "a smaller train_data.sample_size or sample_n_frames (activations grow with their product)".to_owned()),
        (!moves, "a smaller train_data.sample_size (activations grow with its square)".to_owned()),
    ];
    all.into_iter().filter_map(|(helps, line)| helps.then(|| format!("  {line}"))).collect()
}
