//! One binary for all tests: libtorch links once.

mod board;
mod checkpoint;
mod child;
mod files;
mod folder;
mod interrupt;
mod lr;
mod metrics;
mod yaml;
