//! The networks, with the names of diffusers' checkpoints. Each has a `Config` read from the base model's own JSON, and is
//! built from [`crate::nn::Params`]. Nothing here opens a file.

pub mod clip;
pub mod resnet;
pub mod sizes;
pub mod unet;
pub mod vae;
