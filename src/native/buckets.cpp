// Gradients in flat buckets, each summed over all processes as soon as the backward pass is done with it.
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>
#include <string>

#include "c10d.h"
#include "common.h"

using animatediff::Group;
using animatediff::guarded;
using animatediff::list;

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

struct Bucket {
  at::Tensor flat;
  size_t parameters = 0;
  size_t awaited = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

// A parameter's place in its bucket.
struct Slot {
  at::Tensor parameter;
  at::Tensor grad;
  size_t bucket;
  // Whether a gradient came since the update began.
  bool reached = false;
  std::shared_ptr<Node> accumulator;
  uintptr_t hook = 0;
};

class Buckets {
 public:
  // Parameters of one kind and device. They are put into buckets of about `bytes` from the last to the first, which is
  // about the order in which a backward pass finishes them.
  Buckets(c10::intrusive_ptr<c10d::Backend> backend, const std::vector<at::Tensor>& parameters, int64_t bytes)
      : backend_(std::move(backend)) {
    slots_.resize(parameters.size());
    for (size_t end = parameters.size(); end > 0;) {
      size_t begin = end;
      int64_t size = 0;
      while (begin > 0 && (size == 0 || size < bytes)) size += parameters[--begin].nbytes();
      fill(parameters, begin, end);
      end = begin;
    }
    // The hooks hold `this`: the object is never moved, and takes them back when it goes.
    for (size_t i = 0; i < slots_.size(); i++) hook(i);
  }

  Buckets(const Buckets&) = delete;

  ~Buckets() {
    for (auto& slot : slots_) slot.accumulator->del_post_hook(slot.hook);
  }

  // Gradients are zero, and lie in the buckets.
  void begin() {
    std::lock_guard lock(mutex_);
    error_.clear();
    for (auto& bucket : buckets_) bucket.flat.zero_();
    for (auto& slot : slots_) {
      slot.reached = false;
      slot.parameter.mutable_grad() = slot.grad;
    }
    last_ = false;
  }

  // The next backward pass is the last one before the update: what it is done with is summed.
  void arm() {
    std::lock_guard lock(mutex_);
    for (auto& bucket : buckets_) bucket.awaited = bucket.parameters;
    next_ = 0;
    last_ = true;
  }

  // A gradient that was added by other means than a backward pass.
  void add(const std::vector<at::Tensor>& grads) {
    for (size_t i = 0; i < slots_.size(); i++) {
      if (!grads[i].defined()) continue;
      slots_[i].grad.add_(grads[i]);
      slots_[i].reached = true;
    }
  }

  // All gradients are the sums over all processes. A parameter that was not reached has none.
  void finish() {
    {
      std::lock_guard lock(mutex_);
      last_ = false;
      TORCH_CHECK(error_.empty(), error_);
      while (next_ < buckets_.size()) launch();
    }
    for (auto& bucket : buckets_) {
      auto work = std::move(bucket.work);
      work->wait();
    }
    for (auto& slot : slots_) {
      if (!slot.reached) slot.parameter.mutable_grad().reset();
    }
  }

 private:
  void fill(const std::vector<at::Tensor>& parameters, size_t begin, size_t end) {
    int64_t numel = 0;
    for (size_t i = begin; i < end; i++) numel += parameters[i].numel();
    Bucket bucket{at::zeros({numel}, parameters[begin].options().requires_grad(false)), end - begin, 0, {}};
    int64_t offset = 0;
    for (size_t i = begin; i < end; i++) {
      const auto& parameter = parameters[i];
      // `variable_data`: the same memory, and not a view for autograd, which could not be added to in place.
      auto grad = bucket.flat.narrow(0, offset, parameter.numel()).view(parameter.sizes()).variable_data();
      slots_[i] = Slot{parameter, std::move(grad), buckets_.size()};
      offset += parameter.numel();
    }
    buckets_.push_back(std::move(bucket));
  }

  void hook(size_t index) {
    auto& slot = slots_[index];
    slot.accumulator = torch::autograd::impl::grad_accumulator(slot.parameter);
    auto done = [this, index](const variable_list& outputs, const variable_list&) {
      ready(index);
      return outputs;
    };
    slot.hook = slot.accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(done));
  }

  // Called in a thread of the backward pass. An error waits for `finish`: thrown here, it would end the process.
  void ready(size_t index) {
    std::lock_guard lock(mutex_);
    auto& slot = slots_[index];
    slot.reached = true;
    if (!last_) return;
    buckets_[slot.bucket].awaited--;
    try {
      // In the same order in all processes.
      while (next_ < buckets_.size() && buckets_[next_].awaited == 0) launch();
    } catch (const std::exception& error) {
      error_ = error.what();
      last_ = false;
    }
  }

  void launch() {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors{buckets_[next_].flat};
    buckets_[next_].work = backend_->allreduce(tensors);
    next_++;
  }

  c10::intrusive_ptr<c10d::Backend> backend_;
  std::vector<Bucket> buckets_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  // The next bucket to be summed.
  size_t next_ = 0;
  bool last_ = false;
  std::string error_;
};

}  // namespace

extern "C" {

const char* ad_buckets_new(Group* group, at::Tensor* const* parameters, size_t count, int64_t bytes, void** out) {
  return guarded([&] { *out = new Buckets(group->backend, list(parameters, count), bytes); });
}

const char* ad_buckets_begin(void* buckets) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    static_cast<Buckets*>(buckets)->begin();
  });
}

void ad_buckets_arm(void* buckets) { static_cast<Buckets*>(buckets)->arm(); }

const char* ad_buckets_add(void* buckets, at::Tensor* const* grads, size_t count) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    static_cast<Buckets*>(buckets)->add(list(grads, count));
  });
}

const char* ad_buckets_finish(void* buckets) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    static_cast<Buckets*>(buckets)->finish();
  });
}

void ad_buckets_free(void* buckets) { delete static_cast<Buckets*>(buckets); }

}  // extern "C"
