//! Autograd functions of the shim: the values and gradients of libtorch's own nodes, with less kept for the way back. [`geglu`] on the
//! CPU differs from them by what its error function does.

use std::{
    ffi::{CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tch::Tensor;
use torch_sys::C_tensor;

use super::{check, ffi, threads::Shared};
use crate::panics;

/// `x` convolved with a frozen `weight` and `bias`. Keeps the weight for the gradient of `x`, and not `x` itself.
pub fn frozen_conv2d(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: i64, padding: i64) -> Tensor {
    // SAFETY: as in `filled`; the borrowed tensors live for the call.
    filled(|out| unsafe { ffi::ad_frozen_conv2d(out, x.as_ptr(), weight.as_ptr(), bias.as_ptr(), stride, padding) })
}

/// SiLU of the group norm of `x` `[N, C, …]`. Keeps `x` and its statistics.
pub fn group_norm_silu(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: i64, eps: f64) -> Tensor {
    // SAFETY: as in `frozen_conv2d`.
    filled(|out| unsafe { ffi::ad_group_norm_silu(out, x.as_ptr(), weight.as_ptr(), bias.as_ptr(), groups, eps) })
}

/// `value · GELU(gate)` of the halves of the last axis, value first, with the GELU of the error function, which on the CPU is exact to
/// 1.5e-7: of gates below about -5, which let next to nothing through, no digit is right. Keeps `both`.
pub fn geglu(both: &Tensor) -> Tensor {
    // SAFETY: as in `frozen_conv2d`.
    filled(|out| unsafe { ffi::ad_geglu(out, both.as_ptr()) })
}

/// A part of a network whose activations can be computed again.
pub trait Block: Shared {
    /// What it makes of `inputs`, on clips of `frames` frames. Must be the same each time.
    fn run(&self, inputs: &[Tensor], frames: i64) -> Tensor;
}

struct Body<B> {
    block: Arc<B>,
    frames: i64,
}

/// What `block` makes of `inputs`, which are all that is kept: on the way back the block runs again. `trained` are the tensors
/// of the block that want gradients. The gradients are those of a plain run, bit for bit on the CPU.
pub fn recompute<B: Block>(block: &Arc<B>, inputs: &[Tensor], trained: &[Tensor], frames: i64) -> Tensor {
    let body = Box::new(Body { block: Arc::clone(block), frames });
    let variables: Vec<*const C_tensor> = inputs.iter().chain(trained).map(|tensor| tensor.as_ptr()).collect();
    // SAFETY: as in `filled`. The shim owns the body from here on: it calls `run::<B>` with it any number of times, one at a time,
    // in the thread of the backward pass, and `drop_body::<B>` once. `Block: Shared` promises that reading it there is sound.
    filled(|out| unsafe {
        ffi::ad_recompute(
            out,
            variables.as_ptr(),
            variables.len(),
            inputs.len(),
            Box::into_raw(body).cast(),
            run::<B>,
            drop_body::<B>,
        )
    })
}

/// Called by the shim with a body of `B` and borrowed inputs. A panic must not cross C++: it becomes a message.
unsafe extern "C" fn run<B: Block>(
    body: *mut c_void,
    inputs: *const *mut C_tensor,
    count: usize,
    out: *mut C_tensor,
) -> *const c_char {
    // SAFETY: the shim passes the pointer that `recompute` gave it, and `count` pointers to live tensors.
    let (body, inputs) = unsafe { (&*body.cast::<Body<B>>(), std::slice::from_raw_parts(inputs, count)) };
    // SAFETY: cloning makes tensors of their own, which leave the shim's alone.
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| unsafe { Tensor::clone_from_ptr(input) }).collect();
    match catch_unwind(AssertUnwindSafe(|| body.block.run(&inputs, body.frames))) {
        Ok(output) => {
            // SAFETY: both are tensors; the shim's is assigned to.
            unsafe { ffi::ad_assign(out, output.as_ptr()) };
            std::ptr::null()
        }
        Err(panic) => {
            let text = panics::text(&*panic).unwrap_or("a block panicked");
            let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
            // SAFETY: a terminated string, which the shim copies.
            unsafe { ffi::ad_duplicate(text.as_ptr()) }
        }
    }
}

unsafe extern "C" fn drop_body<B: Block>(body: *mut c_void) {
    // SAFETY: the pointer is that of `recompute`, given back once.
    drop(unsafe { Box::from_raw(body.cast::<Body<B>>()) });
}

/// A tensor that `fill` assigns to.
pub(super) fn filled(fill: impl FnOnce(*mut C_tensor) -> *const c_char) -> Tensor {
    let out = Tensor::new();
    check(fill(out.as_ptr().cast_mut()));
    out
}
