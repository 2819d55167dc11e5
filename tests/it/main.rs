//! One binary for all tests: libtorch links once.

mod attention;
mod bench;
mod board;
mod check;
mod checkpoint;
mod child;
mod cli {
    //! The program from end to end, as lines that a user types.
    mod bench;
    mod caching;
    mod configs;
    mod help;
    mod refusals;
    mod sampling;
    pub mod support;
    mod training;
    mod weights;
}
mod data;
mod dist;
mod eval;
mod files;
mod folder;
mod golden {
    //! Against numbers that diffusers and transformers computed: `scripts/golden` makes them, its README describes them.
    mod motion_options;
    mod networks;
    mod resize;
    mod sampling;
    mod schedules;
    mod tokenizer;
    mod training;
    mod training_options;
    mod unet;
}
mod hostile_clips;
mod hub;
mod index;
mod interrupt;
mod kernels;
mod learning;
mod lr;
mod memory;
mod metrics;
mod objective;
mod recompute;
mod reproduce;
mod rescue;
mod resume;
mod selfcheck;
mod shapes_base;
mod shards;
mod side_by_side;
mod support;
mod torture;
mod video;
mod weights;
mod yaml;
