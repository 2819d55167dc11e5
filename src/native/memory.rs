//! How libtorch takes memory: its ways on the CPU, and how much it took on a CUDA device.

use super::{check, ffi};

/// How memory is taken on the CPU: large pages are asked for under tensors of 2 MiB and more, and the process keeps what it frees, but
/// for pieces of 32 MiB and more. Both save page faults. Of `THP_MEM_ALLOC_ENABLE`, `MALLOC_MMAP_THRESHOLD_` and
/// `MALLOC_TRIM_THRESHOLD_`, each that the environment has is left as it is; glibc's tunables are not looked at.
///
/// # Safety
/// No other thread runs yet: the environment is written. libtorch reads it once, with the first tensor.
pub unsafe fn settle_memory() {
    // SAFETY: takes nothing; what is written to is the caller's promise.
    unsafe { ffi::ad_settle_memory() };
}

/// From here on the process keeps pieces of any size for what it allocates next, in one place for all threads, as glibc keeps none
/// above 64 MiB in others. For work that needs the same again and again, such as training on the CPU; where sizes change, the gaps cost
/// memory. Threads that allocated before may have a place of their own. `MALLOC_ARENA_MAX` in the environment has the say, too.
pub fn keep_freed_memory() {
    // SAFETY: takes nothing, and sets what glibc guards by a lock of its own.
    unsafe { ffi::ad_keep_freed_memory() };
}

/// The most bytes since the peaks were last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaPeak {
    /// In tensors.
    pub allocated: i64,
    /// Taken from the driver for them.
    pub reserved: i64,
}

/// The peaks of CUDA device number `device`, which must have been used.
pub fn cuda_peak(device: usize) -> CudaPeak {
    let mut peak = CudaPeak::default();
    // SAFETY: both pointers are to live fields of `peak`; the call keeps neither.
    check(unsafe { ffi::ad_cuda_peak_memory(device as i32, &mut peak.allocated, &mut peak.reserved) });
    peak
}

/// Counts the peaks of CUDA device number `device` from here.
pub fn reset_cuda_peak(device: usize) {
    // SAFETY: takes a plain value.
    check(unsafe { ffi::ad_cuda_reset_peak_memory(device as i32) });
}
