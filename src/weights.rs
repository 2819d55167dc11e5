//! Named tensors on disk.

pub mod write;
