//! Memory that ran out during an update: what would help, and what each would save.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use anyhow::Result;
use tch::{Device, Kind};

use super::{Config, trainer::Weights};
use crate::{native, nn::Checkpointing};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a lack of memory on this thread is going to be an error of [`guard`], so that nobody else need report it.
pub fn guarded() -> bool {
    GUARDED.get()
}

/// Whether a message of libtorch is about memory.
pub fn is_lack(message: &str) -> bool {
    ["out of memory", "not enough memory", "can't allocate memory"].iter().any(|part| message.contains(part))
}

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

/// `body`, with a lack of memory as a value; libtorch has it as a panic. Other panics go on.
pub fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(Failure::Other),
        Err(panic) => match text(&*panic) {
            Some(text) if is_lack(text) => Err(Failure::Lack(Lack(first_line(text)))),
            _ => resume_unwind(panic),
        },
    }
}

fn text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

/// libtorch appends its own C++ stack.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split("\\n").next().unwrap_or_default().to_owned()
}

impl Failure {
    /// As an error, with the settings that would help.
    pub fn explain(self, config: &Config, weights: &Weights, (device, kind): (Device, Kind)) -> anyhow::Error {
        match self {
            Failure::Other(error) => error,
            Failure::Lack(Lack(message)) => {
                let levers = levers(config, &Use::of(config, weights, device), kind);
                anyhow::anyhow!("memory ran out ({message})\nWhat would help:\n{}", levers.join("\n"))
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
    fn of(config: &Config, weights: &Weights, device: Device) -> Use {
        let bytes = |tensors: &std::collections::BTreeMap<String, tch::Tensor>| -> f64 {
            tensors.values().map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as f64).sum()
        };
        let (trained, frozen) = (bytes(&weights.trained), bytes(&weights.frozen));
        // Weights, gradients, moments, averages.
        let moments = if config.use_8bit_adam { 0.5 } else { 2.0 };
        let fixed = frozen + trained * (2.0 + moments + f64::from(u8::from(config.use_ema)));
        let activations = match device {
            Device::Cuda(index) => Some((native::cuda_peak(index).allocated as f64 - fixed).max(0.0)),
            _ => None,
        };
        Use { trained, frozen, activations }
    }
}

/// One line for each setting that is not yet as sparing as it can be.
fn levers(config: &Config, used: &Use, kind: Kind) -> Vec<String> {
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let share = |part: f64| match used.activations {
        Some(bytes) => format!("about {}", gib(part * bytes)),
        None => format!("about {:.0} % of the activations", part * 100.0),
    };
    let batch = config.train_batch_size;
    // Shares as measured on SD 1.5 in bf16, four clips of 256x256x16 on an H200: 28.4 GiB in all, 12.0 with `full`. `blocks` saves
    // next to nothing where residual blocks are frozen: they keep little by themselves.
    let all = [
        (
            config.gradient_checkpointing != Checkpointing::Full,
            format!("gradient_checkpointing: full ({}, for about 30 % more time)", share(0.8)),
        ),
        (
            batch > 1,
            format!(
                "train_batch_size: {} with gradient_accumulation_steps: {} ({}, the same training)",
                batch.div_ceil(2),
                config.gradient_accumulation_steps * 2,
                share(0.5)
            ),
        ),
        (!config.use_8bit_adam, format!("use_8bit_adam: true ({}, rounded updates)", gib(1.5 * used.trained))),
        (config.use_ema, format!("use_ema: false ({})", gib(used.trained))),
        (
            kind == Kind::Float,
            format!("precision: bf16 ({} of weights, and half of the activations)", gib(used.frozen / 2.0)),
        ),
        (true, "a smaller train_data.sample_size or sample_n_frames (activations grow with their product)".to_owned()),
    ];
    all.into_iter().filter_map(|(helps, line)| helps.then(|| format!("  {line}"))).collect()
}
