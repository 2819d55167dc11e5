//! The C signatures of the shim.

use std::ffi::{c_char, c_int, c_void};

use torch_sys::C_tensor;

/// A store of c10d, behind a pointer.
#[repr(C)]
pub struct Store {
    _private: [u8; 0],
}

/// A group of c10d, behind a pointer.
#[repr(C)]
pub struct Group {
    _private: [u8; 0],
}

/// `ad_group_nccl`, which a library of its own has.
pub type OpenNccl =
    unsafe extern "C" fn(*const Store, *const c_char, c_int, c_int, c_int, i64, *mut *mut Group) -> *const c_char;

unsafe extern "C" {
    pub fn ad_store_open(
        host: *const c_char,
        port: u16,
        serve: bool,
        timeout_ms: i64,
        out: *mut *mut Store,
        bound: *mut u16,
    ) -> *const c_char;
    pub fn ad_store_free(store: *mut Store);
    pub fn ad_group_gloo(
        store: *const Store,
        prefix: *const c_char,
        rank: c_int,
        world: c_int,
        interface: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut Group,
    ) -> *const c_char;
    pub fn ad_group_free(group: *mut Group);
    pub fn ad_group_all_reduce(group: *mut Group, tensor: *mut C_tensor, maximum: bool) -> *const c_char;
    pub fn ad_group_broadcast(group: *mut Group, tensor: *mut C_tensor) -> *const c_char;
    pub fn ad_group_all_gather(group: *mut Group, tensor: *const C_tensor, out: *mut C_tensor) -> *const c_char;
    pub fn ad_buckets_new(
        group: *mut Group,
        parameters: *const *const C_tensor,
        count: usize,
        bytes: i64,
        out: *mut *mut c_void,
    ) -> *const c_char;
    pub fn ad_buckets_begin(buckets: *mut c_void) -> *const c_char;
    pub fn ad_buckets_arm(buckets: *mut c_void);
    pub fn ad_buckets_add(buckets: *mut c_void, grads: *const *const C_tensor, count: usize) -> *const c_char;
    pub fn ad_buckets_finish(buckets: *mut c_void) -> *const c_char;
    pub fn ad_buckets_free(buckets: *mut c_void);
    pub fn ad_torch_version() -> *const c_char;
    pub fn ad_settle_memory();
    pub fn ad_keep_freed_memory();
    pub fn ad_free(message: *const c_char);
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
    pub fn ad_frozen_conv2d(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        stride: i64,
        padding: i64,
    ) -> *const c_char;
    pub fn ad_group_norm_silu(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        groups: i64,
        eps: f64,
    ) -> *const c_char;
    pub fn ad_geglu(out: *mut C_tensor, both: *const C_tensor) -> *const c_char;
    pub fn ad_recompute(
        out: *mut C_tensor,
        variables: *const *const C_tensor,
        total: usize,
        count: usize,
        context: *mut c_void,
        run: unsafe extern "C" fn(*mut c_void, *const *mut C_tensor, usize, *mut C_tensor) -> *const c_char,
        drop: unsafe extern "C" fn(*mut c_void),
    ) -> *const c_char;
    pub fn ad_assign(target: *mut C_tensor, source: *const C_tensor);
    pub fn ad_duplicate(text: *const c_char) -> *const c_char;
    pub fn ad_cuda_peak_memory(device: i32, allocated: *mut i64, reserved: *mut i64) -> *const c_char;
    pub fn ad_cuda_reset_peak_memory(device: i32) -> *const c_char;
    pub fn ad_group_norm(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        added: *const C_tensor,
        groups: i64,
        eps: f64,
        together: i64,
        silu: bool,
    ) -> *const c_char;
    pub fn ad_layer_norm(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        eps: f64,
        table: *const C_tensor,
        frames: i64,
        positions: i64,
    ) -> *const c_char;
    pub fn ad_attend_frames(out: *mut C_tensor, qkv: *const C_tensor, frames: i64, heads: i64) -> *const c_char;
    pub fn ad_pack_linear(out: *mut C_tensor, weight: *const C_tensor) -> *const c_char;
    pub fn ad_prefers_onednn() -> bool;
    pub fn ad_linear(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
    ) -> *const c_char;
    pub fn ad_packed_linear(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        onto: *const C_tensor,
    ) -> *const c_char;
    pub fn ad_pack_conv2d(
        out: *mut C_tensor,
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        sizes: *const i64,
    ) -> *const c_char;
    pub fn ad_packed_conv2d(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        onto: *const C_tensor,
        stride: i64,
        padding: i64,
    ) -> *const c_char;
    pub fn ad_patches(out: *mut C_tensor, x: *const C_tensor, kernel: i64, stride: i64, padding: i64) -> *const c_char;
    pub fn ad_lerp(
        targets: *const *const C_tensor,
        sources: *const *const C_tensor,
        count: usize,
        weight: f64,
    ) -> *const c_char;
    pub fn ad_scale(grads: *const *const C_tensor, count: usize, factor: f64) -> *const c_char;
}
