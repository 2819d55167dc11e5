//! Finding CUDA at run time: the binary links the CPU half of libtorch only, and loads the CUDA half when it is there.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Whether CUDA can be used, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cuda {
    /// The driver and libtorch's CUDA half are loaded; this many devices answer.
    Ready {
        /// Number of devices.
        devices: i64,
    },
    /// The reason, as a sentence fragment a user can act on.
    Unavailable(String),
}

/// Loads libtorch's CUDA half on first use, and says what came of it.
///
/// Cheap on a machine without an NVIDIA driver: nothing is loaded there.
pub fn load_cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| find().map_or_else(Cuda::Unavailable, |devices| Cuda::Ready { devices }))
}

fn find() -> Result<i64, String> {
    open(Path::new("libcuda.so.1")).map_err(|error| format!("no NVIDIA driver: {error}"))?;
    let libtorch = libtorch_folder().ok_or("libtorch_cpu.so was not found in this process")?;
    let library = libtorch.join("libtorch_cuda.so");
    if !library.exists() {
        return Err(format!("{} holds a libtorch without CUDA (libtorch_cuda.so is not there)", libtorch.display()));
    }
    open(&library).map_err(|error| format!("libtorch_cuda.so cannot be loaded: {error}"))?;
    match tch::Cuda::device_count() {
        0 => Err("the driver and libtorch's CUDA are there, but no device answers (CUDA_VISIBLE_DEVICES?)".into()),
        devices => Ok(devices),
    }
}

/// Opens a library for the whole process and for good.
fn open(path: &Path) -> Result<(), String> {
    // SAFETY: libcuda and libtorch_cuda are made to be loaded at any time; neither is ever unloaded again.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            Err(format!("{error}{cause}"))
        }
    }
}

/// The folder that this process loaded `libtorch_cpu.so` from.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path =
        maps.lines().filter_map(|line| line.split_once('/')).find(|(_, path)| path.ends_with("/libtorch_cpu.so"))?.1;
    Some(Path::new("/").join(path).parent()?.to_path_buf())
}
