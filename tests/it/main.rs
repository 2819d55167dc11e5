//! One binary for all tests: libtorch links once.

mod board;
mod checkpoint;
mod child;
mod data;
mod files;
mod folder;
mod interrupt;
mod lr;
mod metrics;
mod video;
mod yaml;
