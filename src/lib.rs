//! AnimateDiff on libtorch.
#![cfg_attr(not(test), warn(missing_docs))]

pub mod cli;
pub mod clip;
pub mod data;
pub mod video;
