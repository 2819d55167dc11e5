//! Where to compute, and in which precision.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::native::{Cuda, load_cuda};

/// `auto`, `cpu`, `cuda` or `cuda:n`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| format!("`{text}` is no device; expected auto, cpu, cuda or cuda:n")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<DeviceChoice, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceChoice::Auto => out.write_str("auto"),
            DeviceChoice::Cpu => out.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(out, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// The choice of process `local_rank` of several on one machine: `auto` and `cuda` are then the GPU of that number, or the only one
    /// that this process sees.
    pub fn of_rank(self, local_rank: Option<usize>) -> DeviceChoice {
        match (self, local_rank, load_cuda()) {
            (DeviceChoice::Auto | DeviceChoice::Cuda(0), Some(rank), Cuda::Ready { devices: 2.. }) => {
                DeviceChoice::Cuda(rank)
            }
            _ => self,
        }
    }

    /// The device, or why it cannot be had.
    pub fn resolve(self) -> Result<Device, String> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(match load_cuda() {
                Cuda::Ready { .. } => Device::Cuda(0),
                Cuda::Unavailable(_) => Device::Cpu,
            }),
            DeviceChoice::Cuda(index) => match load_cuda() {
                Cuda::Ready { devices } if (index as i64) < *devices => Ok(Device::Cuda(index)),
                Cuda::Ready { devices } => {
                    Err(format!("device cuda:{index}: there are {devices} CUDA devices, numbered from 0"))
                }
                Cuda::Unavailable(reason) => {
                    Err(format!("device cuda:{index}: {reason}; `animatediff doctor` tells more, `--device cpu` works"))
                }
            },
        }
    }
}

/// The kind that frozen weights are kept in, and that networks compute in; what is trained stays in float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 on CUDA, float32 on the CPU.
    #[default]
    Auto,
    /// float32.
    Fp32,
    /// bfloat16.
    Bf16,
    /// float16; training scales its loss.
    Fp16,
}

impl Precision {
    /// The kind on `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            Precision::Auto if device.is_cuda() => Kind::BFloat16,
            Precision::Auto | Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }
}

impl Precision {
    /// The kind to sample in: as [`Precision::kind`], but `auto` is bf16 on processors that multiply it faster than float32.
    pub fn for_sampling(self, device: Device) -> Kind {
        if self == Precision::Auto && multiplies_bf16() { Kind::BFloat16 } else { self.kind(device) }
    }
}

/// Whether this processor multiplies bf16 by instructions of its own. Those with matrix units have these too.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Precision {
    /// That of `kind`.
    pub fn of(kind: Kind) -> Precision {
        match kind {
            Kind::BFloat16 => Precision::Bf16,
            Kind::Half => Precision::Fp16,
            _ => Precision::Fp32,
        }
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        match text {
            "auto" => Ok(Precision::Auto),
            "fp32" | "f32" | "float32" => Ok(Precision::Fp32),
            "bf16" | "bfloat16" => Ok(Precision::Bf16),
            "fp16" | "f16" | "float16" => Ok(Precision::Fp16),
            _ => Err(format!("`{text}` is no precision; expected auto, fp32, bf16 or fp16")),
        }
    }
}
