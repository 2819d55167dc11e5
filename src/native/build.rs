//! Compiles the C++ shim against the libtorch that `torch-sys` found, and makes the binary remember where it lies.
//!
//! The search path goes in as DT_RUNPATH: the binary runs from any folder, and `LD_LIBRARY_PATH` still wins over it
//! on a machine where libtorch lies elsewhere.

use std::path::PathBuf;

/// The parts of the shim, side by side in this folder.
const SOURCES: [&str; 2] = ["shim.cpp", "autograd.cpp"];

fn main() {
    for name in SOURCES.iter().chain(&["common.h", "build.rs"]) {
        println!("cargo:rerun-if-changed=src/native/{name}");
    }
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes where libtorch lies; run scripts/setup.sh"),
    );
    let lib = lib.canonicalize().unwrap_or_else(|error| {
        panic!("libtorch folder {} cannot be opened ({error}); run scripts/setup.sh", lib.display())
    });
    let include = lib.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(SOURCES.map(|name| format!("src/native/{name}")))
        .compile("animatediff_shim");
    println!("cargo:rustc-link-search=native={}", lib.display());
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
}
