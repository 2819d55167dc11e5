// What this program needs of libtorch and tch 0.24 does not bind. Functions that can fail return null, or an error message that
// the caller frees with `ad_free`. Tensors are `at::Tensor*`, borrowed.
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/version.h>

#include <climits>
#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "common.h"

using animatediff::guarded;
using animatediff::list;

// libgomp's, of OpenMP 5.0; weak, for runtimes that have none.
extern "C" int omp_pause_resource_all(int kind) __attribute__((weak));

namespace {

// What is freed stays with the process; from `apart` bytes on memory is taken from the system for itself alone, and given back.
void keep_below(int apart) {
#if defined(__GLIBC__)
  if (!std::getenv("MALLOC_MMAP_THRESHOLD_")) mallopt(M_MMAP_THRESHOLD, apart);
  if (!std::getenv("MALLOC_TRIM_THRESHOLD_")) mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace

extern "C" {

// The version of the headers; libtorch's libraries carry none that can be asked for.
const char* ad_torch_version() { return TORCH_VERSION; }

// Before there are threads: it writes the environment.
void ad_settle_memory() {
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
  keep_below(32 << 20);
}

void ad_keep_freed_memory() {
  keep_below(INT_MAX);
#if defined(__GLIBC__)
  if (!std::getenv("MALLOC_ARENA_MAX")) mallopt(M_ARENA_MAX, 1);
#endif
}

void ad_free(const char* message) { std::free(const_cast<char*>(message)); }

// One AdamW update of all parameters, in place: decoupled weight decay, no amsgrad. `steps` are 0-d float32 counters of the
// updates so far; they are advanced here, as the kernel corrects its moments by the number of this update and leaves it alone.
const char* ad_fused_adamw(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs,
                           at::Tensor* const* exp_avg_sqs, at::Tensor* const* steps, size_t count, double lr, double beta1,
                           double beta2, double weight_decay, double eps) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_add_(list(steps, count), 1);
    at::_fused_adamw_(list(params, count), list(grads, count), list(exp_avgs, count), list(exp_avg_sqs, count),
                      /*max_exp_avg_sqs=*/{}, list(steps, count), lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

// The L2 norm over all gradients together.
const char* ad_total_norm(at::Tensor* const* grads, size_t count, double* norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *norm = at::stack(at::_foreach_norm(list(grads, count), 2)).norm().item<double>();
  });
}

// Multiplies every gradient by `factor`, in place.
const char* ad_scale(at::Tensor* const* grads, size_t count, double factor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(list(grads, count), at::Scalar(factor));
  });
}

// Moves every target towards its source by `weight` of the way, in place.
const char* ad_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t count, double weight) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(list(targets, count), list(sources, count), at::Scalar(weight));
  });
}

// Ends the helper threads that libgomp keeps for the calling thread; its next parallel region starts new ones.
void ad_end_helpers() {
  constexpr int soft = 1;
  if (omp_pause_resource_all) omp_pause_resource_all(soft);
}

// The most bytes that a CUDA device had in tensors, and held for them, since the peaks were last reset.
const char* ad_cuda_peak_memory(int device, int64_t* allocated, int64_t* reserved) {
  return guarded([&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *allocated = stats.allocated_bytes[all].peak;
    *reserved = stats.reserved_bytes[all].peak;
  });
}

const char* ad_cuda_reset_peak_memory(int device) {
  return guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device));
  });
}

// Adds each of `grads` to the gradient of its parameter. An undefined one is none.
const char* ad_add_grads(at::Tensor* const* params, at::Tensor* const* grads, size_t count) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < count; i++) {
      if (!grads[i]->defined()) continue;
      auto& grad = params[i]->mutable_grad();
      if (grad.defined()) {
        grad.add_(*grads[i]);
      } else {
        grad = grads[i]->clone(at::MemoryFormat::Contiguous);  // `zero_grad` detaches in place, which a view refuses
      }
    }
  });
}

}  // extern "C"
