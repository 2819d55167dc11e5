//! AnimateDiff on libtorch.
#![cfg_attr(not(test), warn(missing_docs))]

pub mod files;
pub mod train;
pub mod weights;
pub mod yaml;
