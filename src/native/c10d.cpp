// Processes that train together, by libtorch's own c10d: its TCP store, its groups, and gradients that are summed over all
// processes while the backward pass still runs.
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "c10d.h"
#include "common.h"

using animatediff::Group;
using animatediff::guarded;
using animatediff::Store;

extern "C" {

// The store at `host:port`; with `serve` it is held by this process, and port 0 takes any that is free. `bound` is its port.
const char* ad_store_open(const char* host, uint16_t port, bool serve, int64_t timeout_ms, Store** out, uint16_t* bound) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *bound = store->getPort();
    *out = new Store{std::move(store)};
  });
}

void ad_store_free(Store* store) { delete store; }

// Gloo's group of all `world` processes that meet in `store` under `prefix`. It speaks through the network interface or the
// address that is named (both may be empty), or what the host's name resolves to.
const char* ad_group_gloo(const Store* store, const char* prefix, int rank, int world, const char* interface,
                          const char* address, int64_t timeout_ms, Group** out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(*interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                               : *address ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                          : c10d::ProcessGroupGloo::createDefaultDevice());
    auto own = c10::make_intrusive<c10d::PrefixStore>(prefix, store->store);
    *out = new Group{c10::make_intrusive<c10d::ProcessGroupGloo>(own, rank, world, options)};
  });
}

void ad_group_free(Group* group) { delete group; }

// The sum (or the maximum) of all processes' `tensor`, in place.
const char* ad_group_all_reduce(Group* group, at::Tensor* tensor, bool maximum) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = maximum ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    group->backend->allreduce(tensors, options)->wait();
  });
}

// Process 0's `tensor` for all, in place.
const char* ad_group_broadcast(Group* group, at::Tensor* tensor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors{*tensor};
    group->backend->broadcast(tensors)->wait();
  });
}

// Every process's `tensor`, in the order of their ranks: `out` has one more axis in front.
const char* ad_group_all_gather(Group* group, at::Tensor* tensor, at::Tensor* out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors{*tensor};
    std::vector<std::vector<at::Tensor>> gathered{out->unbind(0)};
    group->backend->allgather(gathered, tensors)->wait();
  });
}

}  // extern "C"
