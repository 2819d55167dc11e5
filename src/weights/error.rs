//! What can be wrong with a weight file, in words a user can act on.

use std::path::PathBuf;

/// A weight file that cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is not there or cannot be opened.
    #[error("{path}: cannot be opened: {source}", path = .path.display())]
    Open {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a safetensors file.
    #[error("{path}: not a safetensors file: {reason}", path = .path.display())]
    NotSafetensors {
        /// File.
        path: PathBuf,
        /// What it looks like instead.
        reason: String,
    },
    /// Shorter than its header says.
    #[error(
        "{path}: truncated: the header describes {expected} bytes and the file has {found}; copy or download it again",
        path = .path.display()
    )]
    Truncated {
        /// File.
        path: PathBuf,
        /// Bytes by the header.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A tensor of a type that is not read.
    #[error("{path}: `{name}` has type {dtype}; F32, F16, BF16, F64, I64 and I32 are read: save it as one of them", path = .path.display())]
    Dtype {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A diffusers folder without the wanted weights.
    #[error("{path}: no {expected} here{hint}", path = .path.display())]
    NoWeights {
        /// Folder.
        path: PathBuf,
        /// File names that would do.
        expected: String,
        /// What is there instead.
        hint: String,
    },
    /// A sharded model's index that is no index.
    #[error("{path}: not an index of shards: {reason}; copy or download index and shards again", path = .path.display())]
    Index {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Keys that the format does not have.
    #[error("{origin}: {count} of {total} keys are unknown to the format `{format}`, first `{first}`{hint}")]
    UnknownKeys {
        /// Where the keys come from.
        origin: String,
        /// Format that was expected.
        format: &'static str,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// First of them.
        first: String,
        /// What the file may be instead, with the next step.
        hint: String,
    },
    /// Half of a low-rank pair.
    #[error(
        "{origin}: `{path}` has only one half of its low-rank pair: the file is incomplete, export or download it again"
    )]
    HalfPair {
        /// Where the keys come from.
        origin: String,
        /// Layer.
        path: String,
    },
    /// A low-rank pair for a layer that the model does not have.
    #[error("{origin}: {count} of {total} low-rank pairs fit no layer of this model, first `{first}`{hint}")]
    NoTarget {
        /// Where the pairs come from.
        origin: String,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// First of them.
        first: String,
        /// Likely cause and next step.
        hint: String,
    },
    /// A low-rank pair whose shapes do not fit.
    #[error(
        "{origin}: the low-rank pair of `{path}` is {:?} · {:?}, the layer's weight is {:?}; it was made for a model of \
         another size",
        .shapes.up,
        .shapes.down,
        .shapes.weight
    )]
    PairShape {
        /// Where the pair comes from.
        origin: String,
        /// Layer.
        path: String,
        /// What does not fit.
        shapes: Box<PairShapes>,
    },
    /// NaN or infinite values.
    #[error("{origin}: `{name}` holds NaN or infinite values; the file is damaged, or its training diverged")]
    NotFinite {
        /// Where the tensor comes from.
        origin: String,
        /// Tensor.
        name: String,
    },
    /// No tensors at all.
    #[error("{path}: the file holds no tensors; export or download it again", path = .path.display())]
    Empty {
        /// File.
        path: PathBuf,
    },
}

/// The shapes of a low-rank pair and of the weight that it is for.
#[derive(Debug)]
pub struct PairShapes {
    /// Second factor.
    pub up: Vec<i64>,
    /// First factor.
    pub down: Vec<i64>,
    /// The layer's weight.
    pub weight: Vec<i64>,
}
