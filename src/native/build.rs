//! Compiles the C++ shim against the libtorch that `torch-sys` found, and makes the binary remember where it lies.
//!
//! The search path goes in as DT_RUNPATH: the binary runs from any folder, and `LD_LIBRARY_PATH` still wins over it
//! on a machine where libtorch lies elsewhere.

use std::path::{Path, PathBuf};

/// The parts of the shim, side by side in this folder.
const SOURCES: [&str; 5] = ["shim.cpp", "autograd.cpp", "kernels.cpp", "c10d.cpp", "buckets.cpp"];
const HEADERS: [&str; 6] = ["common.h", "kernels.h", "lanes.h", "c10d.h", "gloo", "cuda"];

/// What `lanes.cpp` is compiled for: the name of its table and the compiler's flags.
const LANES: [(&str, &[&str]); 3] = [
    ("lanes_plain", &[]),
    ("lanes_avx2", &["-mavx2", "-mfma"]),
    ("lanes_avx512", &["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]),
];

fn main() {
    for name in SOURCES.iter().chain(&HEADERS).chain(&["lanes.cpp", "nccl.cpp", "build.rs"]) {
        println!("cargo:rerun-if-changed=src/native/{name}");
    }
    let lib = PathBuf::from(
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes where libtorch lies; run scripts/setup.sh"),
    );
    let lib = lib.canonicalize().unwrap_or_else(|error| {
        panic!("libtorch folder {} cannot be opened ({error}); run scripts/setup.sh", lib.display())
    });
    let include = lib.with_file_name("include");
    torch(&include)
        .flag("-fopenmp")
        .define("USE_C10D_GLOO", None)
        .include("src/native/gloo")
        .files(SOURCES.map(|name| format!("src/native/{name}")))
        .compile("animatediff_shim");
    compile_lanes();
    compile_nccl(&include);
    println!("cargo:rustc-link-search=native={}", lib.display());
    for library in ["torch_cpu", "c10", "gomp"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}", lib.display());
}

/// A compiler that finds libtorch's headers.
fn torch(include: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).define("_GLIBCXX_USE_CXX11_ABI", "1");
    build.include(include).include(include.join("torch/csrc/api/include"));
    build
}

/// NCCL's group, in a library of its own that is loaded where there is CUDA; left out where CUDA's headers do not lie beside libtorch.
fn compile_nccl(include: &Path) {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let nvidia = include.ancestors().nth(2).expect("…/torch/include").join("nvidia");
    let cuda = nvidia.join("cu13/include");
    let headers = [nvidia.join("nccl/include"), cuda.clone(), cuda.join("cccl")];
    let there = [headers[0].join("nccl.h"), cuda.join("cuda_runtime_api.h"), cuda.join("crt"), headers[2].clone()];
    if !there.iter().all(|path| path.exists()) {
        return;
    }
    let library = PathBuf::from(std::env::var("OUT_DIR").expect("Cargo sets it")).join("libanimatediff_nccl.so");
    let mut compiler = torch(include).define("USE_C10D_NCCL", None).includes(headers).get_compiler().to_command();
    // Last, so that CUDA's own headers win where they are complete.
    compiler.args(["-shared", "-idirafter", "src/native/cuda", "src/native/nccl.cpp", "-o"]).arg(&library);
    let status = compiler.status().expect("the C++ compiler starts");
    assert!(status.success(), "nccl.cpp does not compile against {}", nvidia.display());
    println!("cargo:rustc-env=ANIMATEDIFF_NCCL={}", library.display());
}

/// The kernels, once for each family of processors that may run them; elsewhere than on x86-64 the plain ones do.
fn compile_lanes() {
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    for (table, flags) in LANES.iter().take(if x86 { LANES.len() } else { 1 }) {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).opt_level(3).flag("-Wno-psabi").define("LANES", *table);
        for flag in *flags {
            build.flag(flag);
        }
        build.file("src/native/lanes.cpp").compile(&format!("animatediff_{table}"));
    }
}
