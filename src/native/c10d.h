// Handles of c10d that the shim gives out.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace animatediff {

// Where processes find one another.
struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

// Processes that compute together.
struct Group {
  c10::intrusive_ptr<c10d::Backend> backend;
};

}  // namespace animatediff
