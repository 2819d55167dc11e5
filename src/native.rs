//! What tch does not bind, through a small C++ shim, behind safe functions: the only unsafe code on libtorch, but for the promise of
//! [`Shared`] in `model`, and the call of [`settle_memory`] in `main`.
//!
//! Knows tensors and devices; knows nothing of models or training.

mod autograd;
mod c10d;
mod cuda;
mod ffi;
pub mod kernels;
mod map;
mod memory;
mod threads;

pub use autograd::{Block, frozen_conv2d, geglu, group_norm_silu, recompute};
pub use c10d::{Address, Answer, Buckets, Group, Members, Store, nccl_library};
pub use cuda::{Cuda, libtorch_folder, load_cuda};
pub use map::MappedFile;
pub use memory::{CudaPeak, cuda_peak, keep_freed_memory, reset_cuda_peak, settle_memory};
pub use threads::{Shared, beside, parts, side_by_side};

use std::ffi::{CStr, c_char};

use tch::Tensor;

/// The hyper-parameters of one AdamW update, as in `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// Updates `params` in place with one fused kernel; `steps` are 0-d float32 counters of
/// the updates so far, advanced by one.
///
/// All five slices have one entry per parameter, float32, on one device.
pub fn fused_adamw(
    params: &[&Tensor],
    grads: &[&Tensor],
    exp_avgs: &[&Tensor],
    exp_avg_sqs: &[&Tensor],
    steps: &[&Tensor],
    step: AdamWStep,
) {
    let count = params.len();
    assert!([grads.len(), exp_avgs.len(), exp_avg_sqs.len(), steps.len()].iter().all(|&len| len == count));
    if count == 0 {
        return;
    }
    let [params, grads, exp_avgs, exp_avg_sqs, steps] = [params, grads, exp_avgs, exp_avg_sqs, steps].map(pointers);
    // SAFETY: every array holds `count` pointers to tensors that the borrowed slices keep alive for the call.
    check(unsafe {
        ffi::ad_fused_adamw(
            params.as_ptr(),
            grads.as_ptr(),
            exp_avgs.as_ptr(),
            exp_avg_sqs.as_ptr(),
            steps.as_ptr(),
            count,
            step.lr,
            step.beta1,
            step.beta2,
            step.weight_decay,
            step.eps,
        )
    });
}

/// The L2 norm of all `grads` taken as one vector.
pub fn total_norm(grads: &[&Tensor]) -> f64 {
    if grads.is_empty() {
        return 0.0;
    }
    let pointers = pointers(grads);
    let mut norm = 0.0;
    // SAFETY: as in `fused_adamw`; `norm` outlives the call.
    check(unsafe { ffi::ad_total_norm(pointers.as_ptr(), pointers.len(), &mut norm) });
    norm
}

/// The version of libtorch that this program was built against.
pub fn torch_version() -> String {
    // SAFETY: a string literal of the shim.
    unsafe { CStr::from_ptr(ffi::ad_torch_version()) }.to_string_lossy().into_owned()
}

/// Multiplies each of `grads` by `factor`, in place.
pub fn scale(grads: &[&Tensor], factor: f64) {
    let pointers = pointers(grads);
    // SAFETY: as in `fused_adamw`.
    check(unsafe { ffi::ad_scale(pointers.as_ptr(), pointers.len(), factor) });
}

/// Moves each of `targets` towards its `source` by `weight` of the way, in place.
pub fn lerp(targets: &[&Tensor], sources: &[&Tensor], weight: f64) {
    assert_eq!(targets.len(), sources.len());
    let [targets, sources] = [targets, sources].map(pointers);
    // SAFETY: as in `fused_adamw`.
    check(unsafe { ffi::ad_lerp(targets.as_ptr(), sources.as_ptr(), targets.len(), weight) });
}

/// Adds each of `grads`, where it is defined, to the gradient of its parameter, as a backward pass does.
pub fn add_grads(params: &[Tensor], grads: &[Tensor]) {
    assert_eq!(params.len(), grads.len());
    let [params, grads] = [params, grads].map(|tensors| pointers(&tensors.iter().collect::<Vec<_>>()));
    // SAFETY: as in `fused_adamw`.
    check(unsafe { ffi::ad_add_grads(params.as_ptr(), grads.as_ptr(), params.len()) });
}

fn pointers(tensors: &[&Tensor]) -> Vec<*const torch_sys::C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}

/// A failure here is a shape, kind or device that this program got wrong: it panics, as tch's own operators do.
fn check(message: *const c_char) {
    taken(message).unwrap_or_else(|text| panic!("libtorch: {text}"));
}

/// The shim's message as an error, where it has one.
fn taken(message: *const c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns either null or a NUL-terminated string that is ours until `ad_free`.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::ad_free(message);
        text
    };
    Err(text)
}
