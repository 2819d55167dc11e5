// Kernels for one processor family each, on plain memory: the same source compiled for several instruction sets, of which the
// program picks one when it starts. They know numbers and rows; tensors and threads are `kernels.cpp`'s.
#pragma once

#include <cstdint>

namespace animatediff {

// bfloat16 as it lies in memory.
struct Brain {
  uint16_t bits;
};

// Where the frames of clips lie in rows `[clip, frame, position]`.
struct Clips {
  int64_t frames;
  int64_t positions;
};

// The heads of an attention whose queries, keys and values lie side by side in each row.
struct Heads {
  int64_t count;
  int64_t width;
};

// The most frames that `attend_frames` takes.
constexpr int64_t kMostFrames = 32;
// And the widest head.
constexpr int64_t kWidestHead = 256;

// All kernels on one type of number. Sums are taken in float32.
template <typename T>
struct Kernels {
  // For every channel: a value near its mean, and the sums of the distances to it and of their squares, over `rows` rows.
  void (*moments)(const T* x, int64_t rows, int64_t channels, float* centre, float* sum, float* squares);
  // `x · scale + shift` of every channel, then SiLU if asked for.
  void (*scale_shift)(const T* x, T* out, int64_t rows, int64_t channels, const float* scale, const float* shift, bool silu);
  // LayerNorm of each row; row `first + r` is of frame `(first + r) / positions % frames`, whose row of `table` is added to it.
  void (*layer_norm)(const T* x, T* out, int64_t first, int64_t rows, int64_t width, const float* weight, const float* bias,
                     float eps, const float* table, Clips clips);
  // `value · GELU(gate)` of rows `[value | gate]`.
  void (*geglu)(const T* both, T* out, int64_t rows, int64_t width);
  // What comes back through it: `grad` to rows `[of value | of gate]`.
  void (*geglu_back)(const T* grad, const T* both, T* out, int64_t rows, int64_t width);
  // Attention over the frames of each of the positions `first` to `last` of all clips; rows `[query | key | value]` of all heads.
  void (*attend_frames)(const T* qkv, T* out, int64_t first, int64_t last, Clips clips, Heads heads, float scale);
  // What comes back through it, in the layout of `qkv`.
  void (*attend_frames_back)(const T* grad, const T* qkv, T* out, int64_t first, int64_t last, Clips clips, Heads heads,
                             float scale);
};

struct Lanes {
  Kernels<float> single;
  Kernels<Brain> brain;
};

extern const Lanes lanes_plain, lanes_avx2, lanes_avx512;

}  // namespace animatediff
