// What `kernels.cpp` gives the other parts of the shim.
#pragma once

#include <ATen/ATen.h>

namespace animatediff {

// Whether the kernels take `x` as it is: float32 or bfloat16, on the CPU, its rows one after the other.
bool fits(const at::Tensor& x);

// `[…, 2·C]` to `[…, C]`: value · GELU(gate).
at::Tensor geglu(const at::Tensor& both);

// The gradient of `both`, from that of the product.
at::Tensor geglu_back(const at::Tensor& grad, const at::Tensor& both);

}  // namespace animatediff
