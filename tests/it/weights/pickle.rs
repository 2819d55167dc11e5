//! PyTorch archives: files that PyTorch wrote (`scripts/golden/pickles.py`), and files that nobody should trust.

pub mod bombs;
mod hostile;
mod reads;
mod refuses;

use std::fs;

use crate::support::golden_path;
use crate::weights::hostile::targets::zip;

/// The bytes of `tests/golden/pickle/<name>`.
pub fn fixture(name: &str) -> Vec<u8> {
    fs::read(golden_path("pickle").join(name)).unwrap_or_else(|error| panic!("{name}: {error}; run `make golden`"))
}
