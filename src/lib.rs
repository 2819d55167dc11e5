//! AnimateDiff on libtorch: three training stages and sampling, in one program.
pub mod model;
pub mod native;
pub mod nn;
