// c10d's NCCL group, in a library of its own: it needs libtorch's CUDA half, which the program loads only where there is CUDA.
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "c10d.h"
#include "common.h"

using animatediff::Group;
using animatediff::guarded;
using animatediff::Store;

// As `ad_group_gloo`, of tensors on CUDA device `device`.
extern "C" const char* ad_group_nccl(const Store* store, const char* prefix, int rank, int world, int device, int64_t timeout_ms,
                                     Group** out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto own = c10::make_intrusive<c10d::PrefixStore>(prefix, store->store);
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(own, rank, world, options);
    group->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    *out = new Group{std::move(group)};
  });
}
