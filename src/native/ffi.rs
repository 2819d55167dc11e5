//! The C signatures of `shim.cpp`.

use std::ffi::c_char;

use torch_sys::C_tensor;

unsafe extern "C" {
    pub fn ad_torch_version() -> *const c_char;
    pub fn ad_free(message: *const c_char);
    pub fn ad_autocast_enter(cuda: bool, kind: i32, was_enabled: *mut bool, was_kind: *mut i32) -> *const c_char;
    pub fn ad_autocast_leave(cuda: bool, was_enabled: bool, was_kind: i32) -> *const c_char;
    pub fn ad_fused_adamw(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *const c_char;
    pub fn ad_total_norm(grads: *const *const C_tensor, count: usize, norm: *mut f64) -> *const c_char;
    pub fn ad_end_helpers();
    pub fn ad_add_grads(params: *const *const C_tensor, grads: *const *const C_tensor, count: usize) -> *const c_char;
    pub fn ad_scale(grads: *const *const C_tensor, count: usize, factor: f64) -> *const c_char;
}
