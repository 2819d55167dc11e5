// Gloo is inside libtorch; its headers are not among libtorch's. These name, without a word on what is in them, the types that the
// header of c10d's Gloo group mentions: enough to make a group and to hold it. Nothing here is ever made or looked into by this
// program.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
