// Kernels of our own for the CPU, and products by oneDNN, with weights that were put in order once and with others.
//
// Each kernel takes what it is made for and nothing else: callers ask first, and have libtorch's operators for the rest.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cmath>

#include "common.h"
#include "kernels.h"
#include "lanes.h"

using animatediff::Brain;
using animatediff::Clips;
using animatediff::guarded;
using animatediff::Heads;
using animatediff::Kernels;
using animatediff::Lanes;

namespace {

// What the processor at hand can do, told once.
const Lanes& lanes() {
#if defined(__x86_64__)
  static const Lanes& best = []() -> const Lanes& {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide) return animatediff::lanes_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return animatediff::lanes_avx2;
    return animatediff::lanes_plain;
  }();
  return best;
#else
  return animatediff::lanes_plain;
#endif
}

// Runs `body(kernels, pointer to a number of that type)` for the type of `x`.
template <typename F>
void by_type(const at::Tensor& x, F&& body) {
  if (x.scalar_type() == at::kFloat) return body(lanes().single, static_cast<float*>(nullptr));
  TORCH_CHECK(x.scalar_type() == at::kBFloat16, "kernels take float32 and bfloat16, not ", x.scalar_type());
  body(lanes().brain, static_cast<Brain*>(nullptr));
}

template <typename T>
const T* read(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <typename T>
T* written(at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// A vector of parameters, as the kernels take them.
at::Tensor single(const at::Tensor& parameter) { return parameter.to(at::kFloat).contiguous(); }

const float* maybe(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

// Numbers below which a thread more costs more than it does.
constexpr int64_t kGrain = 16384;

int64_t rows_per_task(int64_t width) { return std::max<int64_t>(1, kGrain / width); }

// One piece of a picture: what its channels sum to.
struct Sums {
  std::vector<float> centre, sum, squares;
  explicit Sums(int64_t channels) : centre(channels), sum(channels), squares(channels) {}
};

// A group norm over pictures whose channels lie innermost.
struct Normed {
  at::Tensor weight, bias, added;
  int64_t groups, channels, positions;
  double eps;
  // Pictures whose statistics are taken together, and pictures that share a row of `added`.
  int64_t together, sharing;

  const float* added_to(int64_t picture) const {
    return added.defined() ? added.const_data_ptr<float>() + picture / sharing * channels : nullptr;
  }

  // The scales and shifts of all channels of picture `first` and the `together - 1` after it, from the sums of their pieces.
  void settle(const Sums* pieces, int64_t pieces_each, int64_t first, float* scales, float* shifts) const {
    const int64_t members = channels / groups, count = together * pieces_each;
    const auto rows = [&](int64_t piece) { return part(piece % pieces_each, pieces_each).second; };
    for (int64_t group = 0; group < groups; group++) {
      double mean = 0, spread = 0;
      const auto middle = [&](int64_t piece, int64_t c) {
        const float* shift = added_to(first + piece / pieces_each);
        return pieces[piece].centre[c] + double(pieces[piece].sum[c]) / rows(piece) + (shift ? shift[c] : 0.0f);
      };
      for (int64_t piece = 0; piece < count; piece++) {
        for (int64_t c = group * members; c < (group + 1) * members; c++) mean += middle(piece, c) * rows(piece);
      }
      mean /= double(members) * positions * together;
      for (int64_t piece = 0; piece < count; piece++) {
        for (int64_t c = group * members; c < (group + 1) * members; c++) {
          const double sum = pieces[piece].sum[c], away = middle(piece, c) - mean;
          spread += pieces[piece].squares[c] - sum * sum / rows(piece) + away * away * rows(piece);
        }
      }
      const double inverse = 1 / std::sqrt(spread / (double(members) * positions * together) + eps);
      for (int64_t picture = 0; picture < together; picture++) {
        const float* shift = added_to(first + picture);
        for (int64_t c = group * members; c < (group + 1) * members; c++) {
          const double scale = weight.const_data_ptr<float>()[c] * inverse;
          scales[picture * channels + c] = float(scale);
          shifts[picture * channels + c] = float(bias.const_data_ptr<float>()[c] + ((shift ? shift[c] : 0.0f) - mean) * scale);
        }
      }
    }
  }

  // The first position of a piece and how many it has.
  std::pair<int64_t, int64_t> part(int64_t piece, int64_t pieces_each) const {
    const int64_t start = piece * positions / pieces_each;
    return {start, (piece + 1) * positions / pieces_each - start};
  }
};

// Pieces that a picture is cut into, so that few large ones are shared out evenly. By sizes alone: the sums must not depend on
// the number of threads.
int64_t pieces_of(int64_t pictures, int64_t positions) {
  return std::max<int64_t>(1, std::min(positions / 64, 16 / std::max<int64_t>(1, pictures)));
}

template <typename T>
void group_norm(const Kernels<T>& kernels, const at::Tensor& x, at::Tensor& out, const Normed& norm, bool silu) {
  const int64_t pictures = x.size(0), channels = norm.channels, size = norm.positions * channels;
  const int64_t each = pieces_of(pictures, norm.positions);
  const auto measure = [&](int64_t piece, Sums& sums) {
    const auto [start, rows] = norm.part(piece % each, each);
    kernels.moments(read<T>(x) + piece / each * size + start * channels, rows, channels, sums.centre.data(), sums.sum.data(),
                    sums.squares.data());
  };
  const auto apply = [&](int64_t piece, const float* scale, const float* shift) {
    const auto [start, rows] = norm.part(piece % each, each);
    const int64_t offset = piece / each * size + start * channels;
    kernels.scale_shift(read<T>(x) + offset, written<T>(out) + offset, rows, channels, scale, shift, silu);
  };
  if (norm.together == 1 && each == 1) {  // each picture is read again while it is still near
    at::parallel_for(0, pictures, 1, [&](int64_t begin, int64_t end) {
      Sums sums(channels);
      std::vector<float> scale(channels), shift(channels);
      for (int64_t picture = begin; picture < end; picture++) {
        measure(picture, sums);
        norm.settle(&sums, 1, picture, scale.data(), shift.data());
        apply(picture, scale.data(), shift.data());
      }
    });
    return;
  }
  std::vector<Sums> sums(pictures * each, Sums(channels));
  std::vector<float> scale(pictures * channels), shift(pictures * channels);
  at::parallel_for(0, pictures * each, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; piece++) measure(piece, sums[piece]);
  });
  for (int64_t first = 0; first < pictures; first += norm.together) {
    norm.settle(&sums[first * each], each, first, &scale[first * channels], &shift[first * channels]);
  }
  at::parallel_for(0, pictures * each, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; piece++) apply(piece, &scale[piece / each * channels], &shift[piece / each * channels]);
  });
}

Heads heads_of(const at::Tensor& qkv, int64_t heads) { return {heads, qkv.size(-1) / 3 / heads}; }

// `[B·F, P, 3·C]` to `[B·F, P, C]`.
at::Tensor attend_frames(const at::Tensor& qkv, int64_t frames, int64_t heads) {
  const int64_t rows = qkv.size(0), positions = qkv.size(1), width = qkv.size(2) / 3;
  auto out = at::empty({rows, positions, width}, qkv.options());
  by_type(qkv, [&](const auto& kernels, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const float scale = 1 / std::sqrt(float(width / heads));
    at::parallel_for(0, rows / frames * positions, rows_per_task(frames * width), [&](int64_t begin, int64_t end) {
      kernels.attend_frames(read<T>(qkv), written<T>(out), begin, end, Clips{frames, positions}, heads_of(qkv, heads), scale);
    });
  });
  return out;
}

at::Tensor attend_frames_back(const at::Tensor& grad, const at::Tensor& qkv, int64_t frames, int64_t heads) {
  const int64_t rows = qkv.size(0), positions = qkv.size(1), width = qkv.size(2) / 3;
  auto out = at::empty(qkv.sizes(), qkv.options());
  by_type(qkv, [&](const auto& kernels, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const float scale = 1 / std::sqrt(float(width / heads));
    at::parallel_for(0, rows / frames * positions, rows_per_task(frames * width), [&](int64_t begin, int64_t end) {
      kernels.attend_frames_back(read<T>(grad), read<T>(qkv), written<T>(out), begin, end, Clips{frames, positions},
                                 heads_of(qkv, heads), scale);
    });
  });
  return out;
}

// Keeps the rows it was given, and weighs the frames again on the way back.
struct AttendFrames : torch::autograd::Function<AttendFrames> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& qkv, int64_t frames, int64_t heads) {
    ctx->save_for_backward({qkv});
    ctx->saved_data["frames"] = frames;
    ctx->saved_data["heads"] = heads;
    return attend_frames(qkv, frames, heads);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto qkv = ctx->get_saved_variables()[0];
    const auto frames = ctx->saved_data["frames"].toInt(), heads = ctx->saved_data["heads"].toInt();
    return {attend_frames_back(grads[0].to(qkv.scalar_type()).contiguous(), qkv, frames, heads), at::Tensor(), at::Tensor()};
  }
};

// Operators of libtorch that only its dispatcher knows by name.
template <typename Signature>
c10::TypedOperatorHandle<Signature> named(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

using Scalars = c10::List<std::optional<at::Scalar>>;
using Name = std::optional<std::string_view>;
using Maybe = std::optional<at::Tensor>;

Maybe if_defined(const at::Tensor* x) { return x && x->defined() ? Maybe(*x) : Maybe(); }

// `x` times `weight` transposed, by oneDNN: a weight of any strides, packed ones too.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const Maybe& bias) {
  static const auto plain = named<at::Tensor(const at::Tensor&, const at::Tensor&, const Maybe&, std::string_view, Scalars, Name)>(
      "mkldnn::_linear_pointwise", "");
  return plain.call(x, weight, bias, "none", Scalars(), Name());
}

// Rows up to which the gradient of a weight is oneDNN's too. It wants rows and columns the other way round, which is a copy.
constexpr int64_t kFewRows = 256;

// A linear layer of float32 by oneDNN, there and back; its gradients have none themselves. libtorch's own goes to MKL, which outside
// Intel's processors reaches half as much on the rows of small pictures.
struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const Maybe& bias) {
    at::AutoDispatchBelowAutograd below;
    const auto rows = x.reshape({-1, x.size(-1)}).contiguous();
    ctx->save_for_backward({weight.requires_grad() ? rows : at::Tensor(), weight});
    ctx->saved_data["biased"] = bias.has_value();
    return at::_unsafe_view(product(rows, weight, bias), sizes(x, weight.size(0)));  // a view forbids what is done in place
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1];
    const auto grad = grads[0].reshape({-1, weight.size(0)}).contiguous();
    at::Tensor grad_x, grad_weight, grad_bias;
    if (ctx->needs_input_grad(0)) grad_x = product(grad, weight.t(), std::nullopt).view(sizes(grads[0], weight.size(1)));
    if (ctx->needs_input_grad(1)) {
      const bool few = rows.size(0) <= kFewRows;
      grad_weight = few ? product(grad.t().contiguous(), rows.t(), std::nullopt) : at::mm(grad.t(), rows);
    }
    if (ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2)) grad_bias = grad.sum(0);
    return {grad_x, grad_weight, grad_bias};
  }

 private:
  // Those of `x`, with `width` features.
  static std::vector<int64_t> sizes(const at::Tensor& x, int64_t width) {
    auto sizes = x.sizes().vec();
    sizes.back() = width;
    return sizes;
  }
};

// A picture with its channels innermost, by strides that leave no doubt: those of sides of one pixel may say anything, and
// oneDNN minds.
at::Tensor innermost(const at::Tensor& x) {
  const auto y = x.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t channels = y.size(1), row = y.size(3) * channels;
  return y.as_strided(y.sizes(), {y.size(2) * row, 1, row, channels});
}

}  // namespace

namespace animatediff {

bool fits(const at::Tensor& x) {
  const bool known = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return known && x.is_cpu() && x.layout() == at::kStrided && x.is_contiguous();
}

at::Tensor geglu(const at::Tensor& both) {
  auto sizes = both.sizes().vec();
  sizes.back() /= 2;
  auto out = at::empty(sizes, both.options());
  const int64_t width = sizes.back(), rows = out.numel() / width;
  by_type(both, [&](const auto& kernels, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    at::parallel_for(0, rows, rows_per_task(width), [&](int64_t begin, int64_t end) {
      kernels.geglu(read<T>(both) + begin * 2 * width, written<T>(out) + begin * width, end - begin, width);
    });
  });
  return out;
}

at::Tensor geglu_back(const at::Tensor& grad, const at::Tensor& both) {
  auto out = at::empty(both.sizes(), both.options());
  const int64_t width = both.size(-1) / 2, rows = both.numel() / (2 * width);
  by_type(both, [&](const auto& kernels, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    at::parallel_for(0, rows, rows_per_task(2 * width), [&](int64_t begin, int64_t end) {
      kernels.geglu_back(read<T>(grad) + begin * width, read<T>(both) + begin * 2 * width, written<T>(out) + begin * 2 * width,
                         end - begin, width);
    });
  });
  return out;
}

}  // namespace animatediff

extern "C" {

// `x` `[N, C, H, W]`, channels innermost; `added` `[N / sharing, C]` or undefined; statistics over `together` pictures each.
const char* ad_group_norm(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor* added, int64_t groups,
                          double eps, int64_t together, bool silu) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(x->dim() == 4 && x->is_contiguous(at::MemoryFormat::ChannelsLast), "group norm wants channels innermost");
    const int64_t pictures = x->size(0);
    Normed norm{single(*weight), single(*bias),        {},  groups,   x->size(1), x->size(2) * x->size(3),
                eps,             std::max<int64_t>(together, 1), 1};
    TORCH_CHECK(pictures % norm.together == 0, "pictures that share statistics come in whole clips");
    if (added && added->defined()) {
      norm.added = single(*added);
      norm.sharing = pictures / added->size(0);
    }
    auto y = at::empty_like(*x, x->options(), at::MemoryFormat::ChannelsLast);
    by_type(*x, [&](const auto& kernels, auto* type) {
      group_norm<std::remove_pointer_t<decltype(type)>>(kernels, *x, y, norm, silu);
    });
    *out = y;
  });
}

// `x` `[…, C]`, contiguous; `table` `[frames, C]` or undefined is added to the rows of each frame.
const char* ad_layer_norm(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, double eps, at::Tensor* table,
                          int64_t frames, int64_t positions) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(x->is_contiguous(), "layer norm wants its rows one after the other");
    const auto w = single(*weight), b = single(*bias), t = table && table->defined() ? single(*table) : at::Tensor();
    auto y = at::empty(x->sizes(), x->options());
    const int64_t width = x->size(-1), rows = x->numel() / width;
    by_type(*x, [&](const auto& kernels, auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, rows, rows_per_task(width), [&](int64_t begin, int64_t end) {
        kernels.layer_norm(read<T>(*x) + begin * width, written<T>(y) + begin * width, begin, end - begin, width, maybe(w),
                           maybe(b), float(eps), maybe(t), Clips{frames, positions});
      });
    });
    *out = y;
  });
}

// `qkv` `[B·F, P, 3·C]`, contiguous, to `[B·F, P, C]`: attention over F at each position. Has a gradient.
const char* ad_attend_frames(at::Tensor* out, at::Tensor* qkv, int64_t frames, int64_t heads) {
  return guarded([&] { *out = AttendFrames::apply(*qkv, frames, heads); });
}

// The weight `[out, in]` of a linear layer in the order that products read it in.
const char* ad_pack_linear(at::Tensor* out, at::Tensor* weight) {
  return guarded([&] {
    static const auto pack = named<at::Tensor(const at::Tensor&, std::optional<int64_t>)>("mkldnn::_reorder_linear_weight", "");
    at::AutoDispatchBelowAutograd below;
    *out = pack.call(weight->contiguous(), std::nullopt);
  });
}

// Whether oneDNN's products of float32 are to be preferred to MKL's, which has its good kernels for Intel's processors alone.
bool ad_prefers_onednn() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return !__builtin_cpu_is("intel") && __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

// `x` `[…, in]`, float32 on the CPU, to `[…, out]`; `bias` may be undefined. Has a gradient.
const char* ad_linear(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias) {
  return guarded([&] { *out = Linear::apply(*x, *weight, if_defined(bias)); });
}

// `x` times a packed weight, plus `bias` and `onto` where they are.
const char* ad_packed_linear(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor* onto) {
  return guarded([&] {
    static const auto added =
        named<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Maybe&, std::string_view)>(
            "mkldnn::_linear_pointwise", "binary");
    at::AutoDispatchBelowAutograd below;
    const auto input = x->contiguous();
    *out = onto ? added.call(input, onto->contiguous(), *weight, if_defined(bias), "add")
                : product(input, *weight, if_defined(bias));
  });
}

// The weight `[out, in, k, k]` of a convolution in the order that it is read in for pictures of `sizes`.
const char* ad_pack_conv2d(at::Tensor* out, at::Tensor* weight, int64_t stride, int64_t padding, const int64_t* sizes) {
  return guarded([&] {
    at::AutoDispatchBelowAutograd below;
    const std::vector<int64_t> shape(sizes, sizes + 4);
    *out = at::mkldnn_reorder_conv2d_weight(weight->contiguous().to_mkldnn(), {padding, padding}, {stride, stride}, {1, 1}, 1,
                                            at::IntArrayRef(shape));
  });
}

// `x`, channels innermost, convolved with a packed weight, plus `bias`, plus `onto` where it is.
const char* ad_packed_conv2d(at::Tensor* out, at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor* onto, int64_t stride,
                             int64_t padding) {
  return guarded([&] {
    static const auto plain =
        named<at::Tensor(const at::Tensor&, const at::Tensor&, const Maybe&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                         int64_t, std::string_view, Scalars, Name)>("mkldnn::_convolution_pointwise", "");
    static const auto added = named<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Maybe&, at::IntArrayRef,
                                               at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                                               std::optional<at::Scalar>, Name, Scalars, Name)>(
        "mkldnn::_convolution_pointwise", "binary");
    at::AutoDispatchBelowAutograd below;
    const auto input = innermost(*x);
    const std::array<int64_t, 2> around = {padding, padding}, steps = {stride, stride}, dense = {1, 1};
    *out = onto ? added.call(input, innermost(*onto), *weight, if_defined(bias), around, steps, dense,
                             1, "add", std::nullopt, Name(), Scalars(), Name())
                : plain.call(input, *weight, if_defined(bias), around, steps, dense, 1, "none", Scalars(), Name());
  });
}

// The `k × k` patches of `x` `[N, C, H, W]`, channels innermost: `[N·H'·W', k·k·C]`, channels innermost again.
const char* ad_patches(at::Tensor* out, at::Tensor* x, int64_t kernel, int64_t stride, int64_t padding) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto input = x->contiguous(at::MemoryFormat::ChannelsLast);
    const int64_t pictures = x->size(0), channels = x->size(1), height = x->size(2), width = x->size(3);
    const int64_t rows = (height + 2 * padding - kernel) / stride + 1, columns = (width + 2 * padding - kernel) / stride + 1;
    auto patches = at::empty({pictures * rows * columns, kernel * kernel * channels}, x->options());
    const size_t bytes = channels * x->element_size();
    const auto* from = static_cast<const char*>(input.const_data_ptr());
    auto* to = static_cast<char*>(patches.mutable_data_ptr());
    at::parallel_for(0, pictures * rows * columns, 1, [&](int64_t begin, int64_t end) {
      for (int64_t place = begin; place < end; place++) {
        const int64_t picture = place / (rows * columns), top = place / columns % rows * stride - padding;
        const int64_t left = place % columns * stride - padding;
        for (int64_t tap = 0; tap < kernel * kernel; tap++) {
          const int64_t y = top + tap / kernel, z = left + tap % kernel;
          char* cell = to + (place * kernel * kernel + tap) * bytes;
          if (y < 0 || y >= height || z < 0 || z >= width) {
            std::memset(cell, 0, bytes);
          } else {
            std::memcpy(cell, from + ((picture * height + y) * width + z) * bytes, bytes);
          }
        }
      }
    });
    *out = patches;
  });
}

}  // extern "C"
