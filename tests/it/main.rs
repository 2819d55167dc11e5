//! The integration tests: one binary, because libtorch is linked into each.

mod data;
mod video;
