//! What can go wrong between files and networks.

use std::path::PathBuf;

use crate::{model::unet::Unsupported, nn::Problems, tokenizer::TokenizerError, weights::WeightsError};

/// Weights that do not make the model that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A file of weights.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The base is no folder in the diffusers layout.
    #[error("{path}: not a base model: {reason}", path = .path.display())]
    NotABase {
        /// Folder.
        path: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// A config.json that cannot be read.
    #[error("{path}: {reason}", path = .path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A base of another family.
    #[error("{path}: {reason}", path = .path.display())]
    Unsupported {
        /// File.
        path: PathBuf,
        /// Which.
        reason: Unsupported,
    },
    /// Weights that do not fill the network.
    #[error("the weights do not make {what}: {problems}")]
    Weights {
        /// Which network.
        what: &'static str,
        /// All that is wrong.
        problems: Problems,
    },
    /// A motion module that does not fit the base.
    #[error("the motion module does not fit the base: {0}")]
    Motion(String),
}
