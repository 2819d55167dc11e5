//! What can go wrong between files and networks.

use std::path::PathBuf;

use crate::{hub::HubError, model::unet::Unsupported, nn::Problems, tokenizer::TokenizerError, weights::WeightsError};

/// Weights that do not make the model that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A file of weights.
    #[error(transparent)]
    File(#[from] WeightsError),
    /// A file on the Hub.
    #[error(transparent)]
    Hub(HubError),
    /// A word of an embedding.
    #[error("{0}")]
    Word(String),
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
    #[error("{}the weights do not make {what}: {problems}{}", prefix(problems), next_step(problems))]
    Weights {
        /// Which network.
        what: &'static str,
        /// All that is wrong.
        problems: Box<Problems>,
    },
    /// A v2 motion module that is to be another.
    #[error(
        "{path}: this motion module has a part for the middle block (v2), and `motion_module_mid_block` is false; \
         set it to true, or leave out `unet_additional_kwargs` to have the file decide",
        path = .0.display()
    )]
    MidBlock(PathBuf),
    /// Low-rank pairs to go on from that have another rank than the ones to train.
    #[error("{path}: its low-rank pairs have rank {found} and `lora.rank` is {wanted}; set `lora.rank` to {found}", path = .path.display())]
    Rank {
        /// File.
        path: PathBuf,
        /// Its rank.
        found: i64,
        /// The configured one.
        wanted: i64,
    },
    /// Low-rank pairs to go on from that are not all there are.
    #[error("{file}: it has {found} of the {wanted} low-rank tensors of this model; go on from a complete file")]
    Incomplete {
        /// File.
        file: String,
        /// Tensors in it.
        found: usize,
        /// Tensors of the model.
        wanted: usize,
    },
    /// A motion module that does not fit the base.
    #[error("the motion module does not fit the base: {0}")]
    Motion(String),
}

fn prefix(problems: &Problems) -> String {
    problems.origin.as_ref().map_or(String::new(), |file| format!("{file}: "))
}

fn next_step(problems: &Problems) -> String {
    let file = problems.origin.as_deref();
    if !problems.misshapen.is_empty() || !problems.unknown.is_empty() {
        file.map_or(String::new(), |file| format!("; `animatediff inspect {file}` shows what it holds"))
    } else if problems.missing.iter().any(|name| name.contains("motion_modules.")) {
        "; is the module of the version that `unet_additional_kwargs` describes? Only v2 has `mid_block`".into()
    } else if !problems.missing.is_empty() {
        "; the weights are incomplete: copy or download them again".into()
    } else if !problems.not_finite.is_empty() {
        "; the file is damaged, or its training diverged".into()
    } else {
        "; a pattern is a part of a name like `down_blocks.0.motion_modules.0.proj_in.weight`, with `*` for anything"
            .into()
    }
}
