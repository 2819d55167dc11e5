//! Weight files: named tensors, reading and writing, and the tables that turn other tools' names into ours.
//!
//! Inside the program names are diffusers'. A file goes `read` (what container, which tensors) → `identify` (what it holds, in
//! whose names) → `map` (our names); `lora` is arithmetic on names; `write` goes the other way. Knows nothing of networks.

pub mod embedding;
pub mod error;
pub mod finite;
pub mod formats;
pub mod identify;
pub mod lora;
pub mod map;
pub mod named;
pub mod pickle;
pub mod publish;
pub mod read;
pub mod write;

pub use embedding::Embedding;
pub use error::WeightsError;
pub use formats::{Content, Dialect};
pub use identify::{Identified, LowRankUse};
pub use lora::{Lora, LoraFile};
pub use map::Table;
pub use named::NamedTensors;
pub use read::{WeightFile, read};
