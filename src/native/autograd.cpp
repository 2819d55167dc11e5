// Autograd functions that keep less than libtorch's own nodes do, with the same values and gradients; but the gate on the CPU, whose
// error function (lanes.h) is exact to 1.5e-7.
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cstdlib>

#include "common.h"
#include "kernels.h"

using animatediff::guarded;
using animatediff::list;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

at::Tensor none() { return at::Tensor(); }

// A convolution whose weight and bias are frozen. libtorch's node keeps its input for a weight gradient that nobody asks for;
// this one keeps the weight, and of the input the sizes.
struct FrozenConv2d : torch::autograd::Function<FrozenConv2d> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            int64_t stride, int64_t padding) {
    ctx->save_for_backward({weight});
    ctx->saved_data["sizes"] = x.sizes().vec();
    ctx->saved_data["strides"] = x.strides().vec();
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    return at::conv2d(x, weight, bias, stride, padding);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto weight = ctx->get_saved_variables()[0];
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const auto stride = ctx->saved_data["stride"].toInt();
    const auto padding = ctx->saved_data["padding"].toInt();
    // Memory that is laid out as the input was and never read: kernels choose their algorithm by its shape.
    const auto x = at::empty_strided(sizes, ctx->saved_data["strides"].toIntVector(), grads[0].options());
    const auto grad = std::get<0>(at::convolution_backward(grads[0], x, weight, c10::nullopt, {stride, stride}, {padding, padding},
                                                           {1, 1}, false, {0, 0}, 1, {true, false, false}));
    return {grad, none(), none(), none(), none()};
  }
};

// SiLU(GroupNorm(x)) that keeps x and the statistics; the norm is computed again on the way back. libtorch's two nodes keep x and
// the norm's output.
struct GroupNormSilu : torch::autograd::Function<GroupNormSilu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            int64_t groups, double eps) {
    auto [y, mean, rstd] = normalise(x, weight, bias, groups, eps);
    ctx->save_for_backward({x, weight, bias, mean, rstd});
    ctx->saved_data["groups"] = groups;
    ctx->saved_data["eps"] = eps;
    return at::silu_(y);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &bias = saved[2], &mean = saved[3], &rstd = saved[4];
    const auto groups = ctx->saved_data["groups"].toInt();
    const auto y = std::get<0>(normalise(x, weight, bias, groups, ctx->saved_data["eps"].toDouble()));
    const auto grad = at::silu_backward(grads[0].contiguous(y.suggest_memory_format()), y);
    const auto [rows, channels, positions] = extent(x);
    const std::array<bool, 3> wanted = {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)};
    auto [grad_x, grad_weight, grad_bias] =
        at::native_group_norm_backward(grad, x, mean, rstd, weight, rows, channels, positions, groups, wanted);
    return {grad_x, grad_weight, grad_bias, none(), none()};
  }

 private:
  static std::tuple<int64_t, int64_t, int64_t> extent(const at::Tensor& x) {
    return {x.size(0), x.size(1), x.numel() / (x.size(0) * x.size(1))};
  }

  static std::tuple<at::Tensor, at::Tensor, at::Tensor> normalise(const at::Tensor& x, const at::Tensor& weight,
                                                                  const at::Tensor& bias, int64_t groups, double eps) {
    const auto [rows, channels, positions] = extent(x);
    return at::native_group_norm(x.contiguous(x.suggest_memory_format()), weight, bias, rows, channels, positions, groups, eps);
  }
};

// value · GELU(gate) of `[…, 2·C]`, value first, that keeps the product's factors as the one tensor they came in.
struct Geglu : torch::autograd::Function<Geglu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& both) {
    ctx->save_for_backward({both});
    if (animatediff::fits(both)) return animatediff::geglu(both);
    const auto parts = both.chunk(2, -1);
    return parts[0] * at::gelu(parts[1]);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto both = ctx->get_saved_variables()[0];
    if (animatediff::fits(both)) return {animatediff::geglu_back(grads[0].to(both.scalar_type()).contiguous(), both)};
    const auto parts = both.chunk(2, -1);
    const auto grad_value = grads[0] * at::gelu(parts[1]);
    const auto grad_gate = at::gelu_backward(grads[0] * parts[0], parts[1]);
    return {at::cat({grad_value, grad_gate}, -1)};
  }
};

// Part of a network that Rust computes: `run` writes the output for `count` inputs, or gives a message. `drop` ends it.
struct Body : torch::CustomClassHolder {
  using Run = const char* (*)(void* context, at::Tensor* const* inputs, size_t count, at::Tensor* out);
  using Drop = void (*)(void* context);

  Body(void* context, Run run, Drop drop) : context(context), run(run), drop(drop) {}
  Body(const Body&) = delete;
  ~Body() override { drop(context); }

  at::Tensor operator()(const variable_list& inputs) const {
    std::vector<at::Tensor*> pointers;
    for (const auto& input : inputs) pointers.push_back(const_cast<at::Tensor*>(&input));
    at::Tensor out;
    if (const char* message = run(context, pointers.data(), pointers.size(), &out)) {
      const std::string text(message);
      std::free(const_cast<char*>(message));
      TORCH_CHECK(false, text);
    }
    return out;
  }

  void* context;
  Run run;
  Drop drop;
};

// Keeps its inputs only; the body runs again on the way back. Trained tensors of the body are inputs too, behind the first
// `count`, so that their gradients come out like everyone's, whoever asked for them and in whatever thread.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* ctx, at::TensorList variables, int64_t count, const c10::intrusive_ptr<Body>& body) {
    ctx->save_for_backward(variables.vec());
    ctx->saved_data["count"] = count;
    ctx->saved_data["body"] = c10::IValue::make_capsule(body);
    return (*body)(variables.slice(0, count).vec());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto variables = ctx->get_saved_variables();
    const auto count = ctx->saved_data["count"].toInt();
    const auto body = c10::static_intrusive_pointer_cast<Body>(ctx->saved_data["body"].toCapsule());
    for (int64_t i = 0; i < count; i++) variables[i] = variables[i].detach().set_requires_grad(variables[i].requires_grad());
    variable_list wanted;
    for (const auto& variable : variables) {
      if (variable.requires_grad()) wanted.push_back(variable);
    }
    variable_list found;
    {
      at::AutoGradMode with_graph(true);
      const auto out = (*body)(variable_list(variables.begin(), variables.begin() + count));
      found = torch::autograd::grad({out}, wanted, {grads[0]}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    }
    variable_list out;
    size_t next = 0;
    for (const auto& variable : variables) out.push_back(variable.requires_grad() ? found[next++] : none());
    out.push_back(none());
    out.push_back(none());
    return out;
  }
};

}  // namespace

extern "C" {

const char* ad_frozen_conv2d(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, int64_t stride, int64_t padding) {
  return guarded([&] { *out = FrozenConv2d::apply(*x, *weight, *bias, stride, padding); });
}

const char* ad_group_norm_silu(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, int64_t groups, double eps) {
  return guarded([&] { *out = GroupNormSilu::apply(*x, *weight, *bias, groups, eps); });
}

const char* ad_geglu(at::Tensor* out, at::Tensor* both) {
  return guarded([&] { *out = Geglu::apply(*both); });
}

// `body` is taken over: it is dropped when the graph is.
const char* ad_recompute(at::Tensor* out, at::Tensor* const* variables, size_t total, size_t count, void* context, Body::Run run,
                         Body::Drop drop) {
  return guarded([&] {
    const auto body = c10::make_intrusive<Body>(context, run, drop);
    const auto inputs = list(variables, total);
    *out = Recompute::apply(at::TensorList(inputs), static_cast<int64_t>(count), body);
  });
}

// Makes `target` the tensor that `source` is.
void ad_assign(at::Tensor* target, at::Tensor* source) { *target = *source; }

const char* ad_duplicate(const char* text) { return strdup(text); }

}  // extern "C"
