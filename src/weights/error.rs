//! What can be wrong with a weight file, in words a user can act on.

use std::path::PathBuf;

use super::pickle::PickleError;
use crate::hub::HubError;

/// A weight file that cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is not there or cannot be opened.
    #[error("{path}: cannot be opened: {cause}", path = .path.display())]
    Open {
        /// File.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
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
    #[error("{path}: `{name}` has type {dtype}; this type is not read: save it as float32, float16 or bfloat16", path = .path.display())]
    Dtype {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A tensor of more elements than can be counted.
    #[error("{path}: `{name}` has a shape that no tensor has; copy or download the file again", path = .path.display())]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
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
    /// A pickle that cannot be read, or may not be.
    #[error("{path}: {cause}", path = .path.display())]
    Pickle {
        /// File.
        path: PathBuf,
        /// Why.
        cause: PickleError,
    },
    /// A file on the Hub that cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The weights of another family of models.
    #[error("{path}: this is {what}: {reason}", path = .path.display())]
    Foreign {
        /// File.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// Why it does not fit.
        reason: &'static str,
    },
    /// More tensors than any model has.
    #[error("{path}: it has {count} tensors, more than any model that is read here; it is no file of weights", path = .path.display())]
    TooMany {
        /// File.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// Values that a narrower type has no room for.
    #[error("{origin}: `{name}` has values that {kind} has no room for; {step}")]
    Overflow {
        /// Where the tensor comes from.
        origin: String,
        /// Tensor.
        name: String,
        /// Type.
        kind: &'static str,
        /// What to do.
        step: &'static str,
    },
    /// Keys that no format has.
    #[error(
        "{path}: its {count} keys are those of no format that is read here, first `{first}`; README has the table of formats",
        path = .path.display()
    )]
    Unidentified {
        /// File.
        path: PathBuf,
        /// How many keys there are.
        count: usize,
        /// First of them.
        first: String,
    },
    /// Something else than what was asked for.
    #[error("{path}: this is {found}, and {wanted} is expected{step}", path = .path.display())]
    OtherContent {
        /// File.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
        /// Where it belongs.
        step: String,
    },
    /// Names of ours that a format cannot hold.
    #[error(
        "{origin}: {count} of {total} tensors have no name in the format `{format}`, first `{first}`; choose another format with --to"
    )]
    Nameless {
        /// Where the tensors come from.
        origin: String,
        /// Format that was to be written.
        format: &'static str,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// First of them.
        first: String,
    },
    /// Two names for one tensor.
    #[error("{origin}: `{first}` and `{second}` are both `{name}`: the file holds two models; split it first")]
    Twice {
        /// Where the keys come from.
        origin: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// What both are.
        name: String,
    },
    /// A configuration of pairs that cannot be used.
    #[error("{path}: the configuration that PEFT or diffusers keep with it: {reason}", path = .path.display())]
    LoraSettings {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A low-rank form that is not computed here.
    #[error("{origin}: `{path}` is changed by {form}, which is not supported; LoRA, LoCon, LoHa and LoKr are")]
    Form {
        /// Where the factors come from.
        origin: String,
        /// Layer.
        path: String,
        /// Form.
        form: &'static str,
    },
    /// A factor that makes no sense.
    #[error("{origin}: `{path}`: {reason}; the file is damaged, or was made by another kind of tool")]
    Factor {
        /// Where the factors come from.
        origin: String,
        /// Layer.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A delta that is no pair where pairs are needed.
    #[error(
        "{origin}: the delta of `{path}` is a {form}, which is no pair of factors: it can be merged into a model (convert --merge, sample --lora) and not be rewritten"
    )]
    NoPair {
        /// Where the factors come from.
        origin: String,
        /// Layer.
        path: String,
        /// Form.
        form: &'static str,
    },
    /// A delta of another form than a pair whose shape does not fit.
    #[error(
        "{origin}: the {form} of `{path}` does not make the layer's weight of {weight:?}; it was made for a model of another size"
    )]
    FormShape {
        /// Where the factors come from.
        origin: String,
        /// Layer.
        path: String,
        /// Form.
        form: &'static str,
        /// Shape of the layer's weight.
        weight: Vec<i64>,
    },
    /// Low-rank files for models of different sizes.
    #[error("{origin}: their pairs of `{path}` are for layers of different sizes: they were made for different models")]
    OtherSizes {
        /// The files.
        origin: String,
        /// Layer.
        path: String,
    },
    /// An embedding that cannot be used.
    #[error("{path}: the embedding `{name}` cannot be used: {reason}", path = .path.display())]
    Embedding {
        /// File.
        path: PathBuf,
        /// Its name there.
        name: String,
        /// Why.
        reason: String,
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
