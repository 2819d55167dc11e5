//! AnimateDiff on libtorch: three training stages and sampling, in one program.
//!
//! Data goes one way, as plain values: a configuration and weight files become networks ([`assemble`]); clips become
//! batches ([`data`]); a batch becomes a loss ([`train`]) or noise becomes a clip ([`sample`]). In reading order:
//!
//! - [`nn`]: layers, and where a parameter's fate is decided;
//! - [`model`]: CLIP's text encoder, the VAE, and the one UNet with its motion modules;
//! - [`diffusion`]: noise schedules, the objective, DDIM, guidance;
//! - [`hub`]: models named by where they are published;
//! - [`weights`]: files of tensors, and the tables between other tools' names and ours;
//! - [`assemble`]: from files to networks; [`convert`]: from one tool's files to another's; [`inspect`]: what a file is;
//! - [`frame`], [`video`], [`clip`], [`data`]: frames in and out, and training clips in a reproducible order;
//! - [`dist`]: several processes as one;
//! - [`sample`] and [`train`];
//! - [`eval`]: what clips show, measured;
//! - [`panics`]: libtorch's failures as values;
//! - [`config`]: what users write, in layers; [`reproduce`]: the recipe's claims, trained and measured;
//! - [`mod@bench`]: how fast all of it is;
//! - [`cli`]: the commands, the only part that prints.

pub mod assemble;
pub mod bench;
pub mod cli;
pub mod clip;
pub mod config;
pub mod convert;
pub mod data;
pub mod device;
pub mod diffusion;
pub mod dist;
pub mod eval;
pub mod files;
pub mod frame;
pub mod hub;
pub mod inspect;
pub mod machine;
pub mod model;
pub mod native;
pub mod nn;
pub mod panics;
pub mod reproduce;
pub mod sample;
pub mod tokenizer;
pub mod train;
pub mod video;
pub mod weights;
pub mod yaml;
