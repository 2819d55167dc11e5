//! Training: what a run writes and how it is resumed.

pub mod board;
pub mod checkpoint;
pub mod folder;
pub mod interrupt;
pub mod lr;
pub mod metrics;
