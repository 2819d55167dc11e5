// See `lanes.h`. LANES names the table that this compilation fills.
#include "lanes.h"

#include <cmath>
#include <cstring>

namespace animatediff {
namespace {

constexpr int64_t kLanes = 16;

using Wide = float __attribute__((vector_size(64)));
using Narrow = float __attribute__((vector_size(32)));
using Words = uint32_t __attribute__((vector_size(64)));
using Signed = int32_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))

INLINE Wide all(float value) { return Wide{} + value; }

INLINE Wide choose(Signed mask, Wide yes, Wide no) { return mask ? yes : no; }

INLINE Wide load(const float* from) {
  Wide out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

INLINE Wide load(const Brain* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return reinterpret_cast<Wide>(__builtin_convertvector(halves, Words) << 16);
}

INLINE void store(float* to, Wide value) { std::memcpy(to, &value, sizeof value); }

// Rounds to nearest, ties to even. What is not a number stays so.
INLINE void store(Brain* to, Wide value) {
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words kept = (value == value) ? rounded : (Words{} + 0x7fc0u);
  const Halves halves = __builtin_convertvector(kept, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

INLINE Wide lower(Narrow value) {
  return __builtin_shufflevector(value, Narrow{}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE Wide load_half(const float* from) {
  Narrow out;
  std::memcpy(&out, from, sizeof out);
  return lower(out);
}

INLINE Wide load_half(const Brain* from) {
  uint16_t __attribute__((vector_size(16))) quarters;
  std::memcpy(&quarters, from, sizeof quarters);
  using NarrowWords = uint32_t __attribute__((vector_size(32)));
  return lower(reinterpret_cast<Narrow>(__builtin_convertvector(quarters, NarrowWords) << 16));
}

// The first `count` lanes; the others are zero, and stay untouched in memory. Heads of 40 make half vectors common.
template <typename T>
INLINE Wide load(const T* from, int64_t count) {
  if (count >= kLanes) return load(from);
  if (count == kLanes / 2) return load_half(from);
  T part[kLanes] = {};
  std::memcpy(part, from, count * sizeof(T));
  return load(part);
}

template <typename T>
INLINE void store(T* to, Wide value, int64_t count) {
  if (count >= kLanes) return store(to, value);
  T part[kLanes];
  store(part, value);
  if (count == kLanes / 2) {
    std::memcpy(to, part, kLanes / 2 * sizeof(T));
    return;
  }
  std::memcpy(to, part, count * sizeof(T));
}

INLINE float total(Wide value) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; i++) sum += value[i];
  return sum;
}

INLINE float single(float value) { return value; }
INLINE float single(Brain value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

// e^x to two units in the last place: 2^n by the exponent bits, the rest by its series.
INLINE Wide exponential(Wide x) {
  x = choose(x > 88.0f, all(88.0f), x);
  x = choose(x < -87.0f, all(-87.0f), x);
  const float rounding = 12582912.0f;  // 1.5 · 2^23: adding it drops the fraction
  const Wide n = (x * 1.44269504f + rounding) - rounding;
  const Wide r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Wide sum = all(1.0f / 5040);
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Signed power = (__builtin_convertvector(n, Signed) + 127) << 23;
  return sum * reinterpret_cast<Wide>(power);
}

INLINE Wide silu(Wide x) { return x / (1.0f + exponential(-x)); }

// The error function within 1.5e-7 (Abramowitz and Stegun, 7.1.26), for x ≥ 0, given e^(-x²).
INLINE Wide error_function(Wide x, Wide gauss) {
  const Wide t = 1.0f / (1.0f + 0.3275911f * x);
  Wide sum = all(1.061405429f);
  sum = sum * t - 1.453152027f;
  sum = sum * t + 1.421413741f;
  sum = sum * t - 0.284496736f;
  sum = sum * t + 0.254829592f;
  return 1.0f - sum * t * gauss;
}

struct Bell {
  Wide cumulative;  // Φ(x)
  Wide density;     // φ(x)
};

INLINE Bell bell(Wide x) {
  const Wide gauss = exponential(x * x * -0.5f);
  const Wide size = choose(x < 0.0f, -x, x) * 0.70710678f;
  const Wide tail = 0.5f * error_function(size, gauss);
  return {choose(x < 0.0f, 0.5f - tail, 0.5f + tail), gauss * 0.39894228f};
}

template <typename T>
void moments(const T* x, int64_t rows, int64_t channels, float* centre, float* sum, float* squares) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t count = channels - c < kLanes ? channels - c : kLanes;
    store(centre + c, load(x + c, count), count);
    store(sum + c, Wide{}, count);
    store(squares + c, Wide{}, count);
  }
  for (int64_t r = 0; r < rows; r++) {
    const T* row = x + r * channels;
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t count = channels - c < kLanes ? channels - c : kLanes;
      const Wide away = load(row + c, count) - load(centre + c, count);
      store(sum + c, load(sum + c, count) + away, count);
      store(squares + c, load(squares + c, count) + away * away, count);
    }
  }
}

template <typename T, bool with_silu>
INLINE void scale_shift_rows(const T* x, T* out, int64_t rows, int64_t channels, const float* scale, const float* shift) {
  for (int64_t r = 0; r < rows; r++, x += channels, out += channels) {
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t count = channels - c < kLanes ? channels - c : kLanes;
      const Wide y = load(x + c, count) * load(scale + c, count) + load(shift + c, count);
      store(out + c, with_silu ? silu(y) : y, count);
    }
  }
}

template <typename T>
void scale_shift(const T* x, T* out, int64_t rows, int64_t channels, const float* scale, const float* shift, bool silu) {
  if (silu) {
    scale_shift_rows<T, true>(x, out, rows, channels, scale, shift);
  } else {
    scale_shift_rows<T, false>(x, out, rows, channels, scale, shift);
  }
}

template <typename T>
void layer_norm(const T* x, T* out, int64_t first, int64_t rows, int64_t width, const float* weight, const float* bias, float eps,
                const float* table, Clips clips) {
  for (int64_t r = 0; r < rows; r++, x += width, out += width) {
    Wide sum = {};
    for (int64_t c = 0; c < width; c += kLanes) sum += load(x + c, width - c);
    const float mean = total(sum) / width;
    Wide squares = {};
    for (int64_t c = 0; c + kLanes <= width; c += kLanes) {
      const Wide away = load(x + c) - mean;
      squares += away * away;
    }
    float spread = total(squares);
    for (int64_t c = width / kLanes * kLanes; c < width; c++) spread += (single(x[c]) - mean) * (single(x[c]) - mean);
    const float inverse = 1.0f / std::sqrt(spread / width + eps);
    const float* added = table ? table + (first + r) / clips.positions % clips.frames * width : nullptr;
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t count = width - c;
      Wide y = (load(x + c, count) - mean) * inverse * load(weight + c, count) + load(bias + c, count);
      if (added) y += load(added + c, count);
      store(out + c, y, count);
    }
  }
}

template <typename T>
void geglu(const T* both, T* out, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r++, both += 2 * width, out += width) {
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t count = width - c;
      const Wide gate = load(both + width + c, count);
      store(out + c, load(both + c, count) * gate * bell(gate).cumulative, count);
    }
  }
}

template <typename T>
void geglu_back(const T* grad, const T* both, T* out, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r++, grad += width, both += 2 * width, out += 2 * width) {
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t count = width - c;
      const Wide back = load(grad + c, count), value = load(both + c, count), gate = load(both + width + c, count);
      const auto [cumulative, density] = bell(gate);
      store(out + c, back * gate * cumulative, count);
      store(out + width + c, back * value * (cumulative + gate * density), count);
    }
  }
}

// One head of the frames of one position, in float32.
struct Head {
  // Frames side by side, as the lanes of a product want them.
  alignas(64) float keys[kWidestHead][kMostFrames];
  alignas(64) float queries[kMostFrames][kWidestHead];
  alignas(64) float values[kMostFrames][kWidestHead];
  alignas(64) float weights[kMostFrames][kMostFrames];
};

template <typename T>
INLINE void widen(const T* from, float* to, int64_t width) {
  for (int64_t d = 0; d < width; d += kLanes) store(to + d, load(from + d, width - d), kLanes);
}

// `out[i][j] = Σ_d left[i][d] · right[d][j]`, four rows at a time.
INLINE void products(const float (*left)[kWidestHead], const float (*right)[kMostFrames], float (*out)[kMostFrames], int64_t frames,
                     int64_t width) {
  for (int64_t j = 0; j < frames; j += kLanes) {
    int64_t i = 0;
    for (; i + 4 <= frames; i += 4) {
      Wide a = {}, b = {}, c = {}, e = {};
      for (int64_t d = 0; d < width; d++) {
        const Wide column = load(right[d] + j);
        a += left[i][d] * column;
        b += left[i + 1][d] * column;
        c += left[i + 2][d] * column;
        e += left[i + 3][d] * column;
      }
      store(out[i] + j, a);
      store(out[i + 1] + j, b);
      store(out[i + 2] + j, c);
      store(out[i + 3] + j, e);
    }
    for (; i < frames; i++) {
      Wide a = {};
      for (int64_t d = 0; d < width; d++) a += left[i][d] * load(right[d] + j);
      store(out[i] + j, a);
    }
  }
}

// `out = Σ_j weights[j] · rows[j]`, for one row of weights.
template <typename T>
INLINE void mixture(const float* weights, int64_t stride, const float (*rows)[kWidestHead], T* out, int64_t frames, int64_t width) {
  for (int64_t d = 0; d < width; d += kLanes) {
    Wide sum = {};
    for (int64_t j = 0; j < frames; j++) sum += weights[j * stride] * load(rows[j] + d);
    store(out + d, sum, width - d);
  }
}

INLINE void transpose(const float (*rows)[kWidestHead], float (*columns)[kMostFrames], int64_t frames, int64_t width) {
  for (int64_t d = 0; d < width; d++) {
    for (int64_t j = 0; j < frames; j++) columns[d][j] = rows[j][d];
  }
}

// Scores to weights that sum to one, row by row.
INLINE void soften(float (*weights)[kMostFrames], int64_t frames, float scale) {
  for (int64_t i = 0; i < frames; i++) {
    float most = weights[i][0];
    for (int64_t j = 1; j < frames; j++) most = weights[i][j] > most ? weights[i][j] : most;
    float sum = 0;
    for (int64_t j = 0; j < frames; j += kLanes) {
      const Wide exponentials = exponential((load(weights[i] + j) - most) * scale);
      store(weights[i] + j, exponentials);
      for (int64_t k = 0; k < kLanes && j + k < frames; k++) sum += exponentials[k];
    }
    for (int64_t j = 0; j < frames; j += kLanes) store(weights[i] + j, load(weights[i] + j) / sum);
  }
}

// Reads the rows `[query | key | value]` of one head and weighs the frames.
template <typename T>
INLINE void weigh(Head& head, const T* qkv, int64_t stride, int64_t inner, int64_t frames, int64_t width, float scale) {
  for (int64_t f = 0; f < frames; f++) {
    widen(qkv + f * stride, head.queries[f], width);
    // Keys pass through the place of the values on their way.
    widen(qkv + f * stride + inner, head.values[f], width);
  }
  transpose(head.values, head.keys, frames, width);
  for (int64_t f = 0; f < frames; f++) widen(qkv + f * stride + 2 * inner, head.values[f], width);
  products(head.queries, head.keys, head.weights, frames, width);
  soften(head.weights, frames, scale);
}

template <typename T>
void attend_frames(const T* qkv, T* out, int64_t first, int64_t last, Clips clips, Heads heads, float scale) {
  Head head = {};
  const int64_t inner = heads.count * heads.width;
  for (int64_t unit = first; unit < last; unit++) {
    const int64_t row = unit / clips.positions * clips.frames * clips.positions + unit % clips.positions;
    for (int64_t h = 0; h < heads.count; h++) {
      const T* from = qkv + row * 3 * inner + h * heads.width;
      weigh(head, from, clips.positions * 3 * inner, inner, clips.frames, heads.width, scale);
      for (int64_t i = 0; i < clips.frames; i++) {
        T* to = out + (row + i * clips.positions) * inner + h * heads.width;
        mixture(head.weights[i], 1, head.values, to, clips.frames, heads.width);
      }
    }
  }
}

// With P the weights and G the gradient of the output: of values Pᵀ G; of scores S = P ∘ (G Vᵀ − rowsum(P ∘ G Vᵀ));
// of queries S K · scale, of keys Sᵀ Q · scale.
template <typename T>
void attend_frames_back(const T* grad, const T* qkv, T* out, int64_t first, int64_t last, Clips clips, Heads heads, float scale) {
  Head head = {};
  alignas(64) float grads[kMostFrames][kWidestHead] = {};
  alignas(64) float keys[kMostFrames][kWidestHead] = {};
  alignas(64) float scores[kMostFrames][kMostFrames] = {};
  const int64_t inner = heads.count * heads.width, frames = clips.frames;
  const int64_t stride = clips.positions * 3 * inner;
  for (int64_t unit = first; unit < last; unit++) {
    const int64_t row = unit / clips.positions * frames * clips.positions + unit % clips.positions;
    for (int64_t h = 0; h < heads.count; h++) {
      const T* from = qkv + row * 3 * inner + h * heads.width;
      T* to = out + row * 3 * inner + h * heads.width;
      weigh(head, from, stride, inner, frames, heads.width, scale);
      for (int64_t f = 0; f < frames; f++) {
        widen(grad + (row + f * clips.positions) * inner + h * heads.width, grads[f], heads.width);
        widen(from + f * stride + inner, keys[f], heads.width);
      }
      transpose(head.values, head.keys, frames, heads.width);
      products(grads, head.keys, scores, frames, heads.width);
      for (int64_t i = 0; i < frames; i++) {
        float sum = 0;
        for (int64_t j = 0; j < frames; j++) sum += head.weights[i][j] * scores[i][j];
        for (int64_t j = 0; j < frames; j++) scores[i][j] = head.weights[i][j] * (scores[i][j] - sum) * scale;
      }
      for (int64_t f = 0; f < frames; f++) {
        mixture(scores[f], 1, keys, to + f * stride, frames, heads.width);
        mixture(&scores[0][f], kMostFrames, head.queries, to + f * stride + inner, frames, heads.width);
        mixture(&head.weights[0][f], kMostFrames, grads, to + f * stride + 2 * inner, frames, heads.width);
      }
    }
  }
}

template <typename T>
constexpr Kernels<T> kernels() {
  return {moments<T>, scale_shift<T>, layer_norm<T>, geglu<T>, geglu_back<T>, attend_frames<T>, attend_frames_back<T>};
}

}  // namespace

extern const Lanes LANES = {kernels<float>(), kernels<Brain>()};

}  // namespace animatediff
