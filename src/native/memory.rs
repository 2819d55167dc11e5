//! How much memory libtorch took on a CUDA device.

use super::{check, ffi};

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
