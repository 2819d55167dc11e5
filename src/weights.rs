//! Weight files: named tensors, reading and writing, and the tables that turn other tools' names into ours.
//!
//! Inside the program names are diffusers'. Knows nothing of networks.

pub mod error;
pub mod formats;
pub mod lora;
pub mod map;
pub mod named;
pub mod read;
pub mod write;

pub use error::WeightsError;
pub use lora::Lora;
pub use map::Table;
pub use named::NamedTensors;
pub use read::{WeightFile, read, read_component};
