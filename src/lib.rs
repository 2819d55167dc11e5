//! AnimateDiff on libtorch: three training stages and sampling, in one program.
pub mod assemble;
pub mod diffusion;
pub mod model;
pub mod native;
pub mod nn;
pub mod tokenizer;
pub mod train;
pub mod weights;
pub mod files;
