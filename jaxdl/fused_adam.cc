// The gradient of a dense layer's kernel and Adam's step on it, in one pass on a CPU core.
//
// The gradient is a product of two factors, inputs^T [D, B] @ cotangents [B, F]. XLA writes it to
// memory and reads it back three times, once for each of the moments and the parameters. Here a tile
// of it is summed up in registers and used at once, so that a step reads and writes each of the
// parameters and moments once. See jaxdl/fused_adam.py, which also says what is the reference.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace {

struct Shape {
  size_t batch, rows, columns;  // B, D, F
};

struct Adam {
  // First and second moment: how much of it is kept and how much of the gradient comes in.
  float keep_m, add_m, keep_v, add_v;
  float rate, epsilon;  // the learning rate and epsilon, both with the moments' bias corrected
  float keep;           // of the parameters, 1 without weight decay
};

struct State {
  const float *params, *m, *v;
  float *new_params, *new_m, *new_v;  // may be the same arrays
};

// A vector that crosses the border between two takes twice as long to load.
struct alignas(64) CacheLine {
  float numbers[16];
};

// The step of `count` neighbouring parameters from `at` on.
ALWAYS_INLINE void Step(Adam adam, const float* gradient, size_t count, State state,
                        size_t at) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) {
    const float g = gradient[i];
    const float m = adam.add_m * g + adam.keep_m * state.m[at + i];
    const float v = adam.add_v * (g * g) + adam.keep_v * state.v[at + i];
    state.new_m[at + i] = m;
    state.new_v[at + i] = v;
    state.new_params[at + i] =
        adam.keep * state.params[at + i] - adam.rate * (m / (std::sqrt(v) + adam.epsilon));
  }
}

// A tile of kRows x (kLanes * kVectors) parameters, of which rows x columns are there: if kWhole,
// all of them.
template <int kLanes, int kRows, int kVectors, bool kWhole>
ALWAYS_INLINE void Tile(Adam adam, Shape shape, const float* inputs,
                        const float* cotangents, State state, size_t at, size_t rows,
                        size_t columns, bool prefetch) {
  typedef float Vector
      __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));
  constexpr size_t width = kLanes * kVectors;
  if (prefetch) {
    for (size_t row = 0; row < rows; ++row) {
      for (size_t i = at + row * shape.columns; i < at + row * shape.columns + columns; i += 16) {
        __builtin_prefetch(state.m + i, 1);
        __builtin_prefetch(state.v + i, 1);
        __builtin_prefetch(state.params + i, 1);
      }
    }
  }
  Vector sums[kRows][kVectors] = {};
  for (size_t b = 0; b < shape.batch; ++b) {
    Vector of_columns[kVectors];
    for (int i = 0; i < kVectors; ++i) {
      of_columns[i] = *reinterpret_cast<const Vector*>(cotangents + b * width + i * kLanes);
    }
    for (int row = 0; row < kRows; ++row) {
      const float of_row = inputs[b * kRows + row];
      for (int i = 0; i < kVectors; ++i) sums[row][i] += of_row * of_columns[i];
    }
  }
  alignas(64) float gradient[kRows][width];
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < kVectors; ++i) {
      *reinterpret_cast<Vector*>(gradient[row] + i * kLanes) = sums[row][i];
    }
  }
  for (size_t row = 0; row < (kWhole ? kRows : rows); ++row) {
    Step(adam, gradient[row], kWhole ? width : columns, state, at + row * shape.columns);
  }
}

// Copies `columns` numbers of each of B lines to panels [columns / kWidth, B, kWidth], the last one
// filled up with zeros.
template <size_t kWidth>
ALWAYS_INLINE void Pack(const float* lines, size_t stride, size_t batch, size_t columns,
                        float* packed) {
  for (size_t first = 0; first < columns; first += kWidth) {
    const size_t count = std::min(kWidth, columns - first);
    for (size_t b = 0; b < batch; ++b, packed += kWidth) {
      const float* line = lines + b * stride + first;
      if (count == kWidth) {
        std::memcpy(packed, line, sizeof(float) * kWidth);
      } else {
        std::memcpy(packed, line, sizeof(float) * count);
        std::fill(packed + count, packed + kWidth, 0.0f);
      }
    }
  }
}

template <int kLanes, int kRows, int kVectors, bool kWhole>
ALWAYS_INLINE void UpdateTiles(Adam adam, Shape shape, const float* inputs,
                          const float* cotangents, State state) {
  constexpr size_t width = kLanes * kVectors;
  // Cotangents that a core's first cache holds (32 KB) are passed over for each tile of rows. Of
  // more, one panel is used for several tiles before the next.
  const size_t block = kRows * (shape.batch * shape.columns <= 8192 ? 1 : 8);
  // State that outgrows the second cache is asked for while the gradient is computed.
  const bool prefetch = shape.rows * shape.columns > 262144;
  const size_t panels = (shape.columns + width - 1) / width;
  // Kept by the thread, as memory of this size is slow to come by.
  static thread_local std::vector<CacheLine> workspace;
  const size_t needed = shape.batch * (panels * width + block) * sizeof(float) / sizeof(CacheLine);
  if (workspace.size() <= needed) workspace.resize(needed + 1);
  float* packed_cotangents = workspace.data()->numbers;
  float* packed_inputs = packed_cotangents + shape.batch * panels * width;

  Pack<width>(cotangents, shape.columns, shape.batch, shape.columns, packed_cotangents);
  for (size_t first = 0; first < shape.rows; first += block) {
    const size_t count = std::min(block, shape.rows - first);
    Pack<kRows>(inputs + first, shape.rows, shape.batch, count, packed_inputs);
    for (size_t panel = 0; panel < panels; ++panel) {
      const size_t columns = std::min(width, shape.columns - panel * width);
      for (size_t i = 0; i < count; i += kRows) {
        Tile<kLanes, kRows, kVectors, kWhole>(adam, shape, packed_inputs + i * shape.batch,
                                      packed_cotangents + panel * shape.batch * width, state,
                                      (first + i) * shape.columns + panel * width,
                                      std::min<size_t>(kRows, count - i), columns, prefetch);
      }
    }
  }
}

// Where all tiles are whole, the usual case, the compiler is told so: it knows how long loops are.
template <int kLanes, int kRows, int kVectors>
ALWAYS_INLINE void Update(Adam adam, Shape shape, const float* inputs, const float* cotangents,
                          State state) {
  if (shape.rows % kRows == 0 && shape.columns % (kLanes * kVectors) == 0) {
    UpdateTiles<kLanes, kRows, kVectors, true>(adam, shape, inputs, cotangents, state);
  } else {
    UpdateTiles<kLanes, kRows, kVectors, false>(adam, shape, inputs, cotangents, state);
  }
}

// Tiles that fit the registers: 32 of 16 numbers, 16 of 8. Of one example the gradient is no sum,
// and rows of it one after the other are read fastest.
__attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))) void UpdateAvx512(
    Adam adam, Shape shape, const float* inputs, const float* cotangents,
    State state) {
  if (shape.batch == 1) {
    Update<16, 1, 4>(adam, shape, inputs, cotangents, state);
  } else {
    Update<16, 4, 4>(adam, shape, inputs, cotangents, state);
  }
}

__attribute__((target("arch=x86-64-v3"))) void UpdateAvx2(Adam adam, Shape shape,
                                                          const float* inputs,
                                                          const float* cotangents,
                                                          State state) {
  if (shape.batch == 1) {
    Update<8, 1, 4>(adam, shape, inputs, cotangents, state);
  } else {
    Update<8, 4, 2>(adam, shape, inputs, cotangents, state);
  }
}

using Matrix = ffi::BufferR2<ffi::F32>;
using Vector = ffi::BufferR1<ffi::F32>;

// Args: params, m, v [D, F]; inputs [B, D]; cotangents [B, F]; rate, epsilon, keep [3].
template <auto kUpdate>
ffi::Error Call(Matrix params, Matrix m, Matrix v, Matrix inputs, Matrix cotangents, Vector scalars,
                double b1, double b2, ffi::Result<Matrix> new_params, ffi::Result<Matrix> new_m,
                ffi::Result<Matrix> new_v) {
  const auto of_inputs = inputs.dimensions(), of_cotangents = cotangents.dimensions();
  const Shape shape{static_cast<size_t>(of_inputs[0]), static_cast<size_t>(of_inputs[1]),
                    static_cast<size_t>(of_cotangents[1])};
  for (const Matrix& matrix : {params, m, v, *new_params, *new_m, *new_v}) {
    if (static_cast<size_t>(matrix.dimensions()[0]) != shape.rows ||
        static_cast<size_t>(matrix.dimensions()[1]) != shape.columns) {
      return ffi::Error::InvalidArgument("fused_adam: not the shape that its factors give");
    }
  }
  if (of_cotangents[0] != of_inputs[0] || scalars.element_count() != 3) {
    return ffi::Error::InvalidArgument("fused_adam: factors of unequal length, or not 3 scalars");
  }
  const float* scalar = scalars.typed_data();
  const Adam adam{static_cast<float>(b1),
                  static_cast<float>(1 - b1),
                  static_cast<float>(b2),
                  static_cast<float>(1 - b2),
                  scalar[0],
                  scalar[1],
                  scalar[2]};
  const State state{params.typed_data(),      m.typed_data(),      v.typed_data(),
                    new_params->typed_data(), new_m->typed_data(), new_v->typed_data()};
  kUpdate(adam, shape, inputs.typed_data(), cotangents.typed_data(), state);
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Vector>()
      .Attr<double>("b1")
      .Attr<double>("b2")
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Matrix>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(fused_adam_avx512, Call<UpdateAvx512>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fused_adam_avx2, Call<UpdateAvx2>, Binding());

// Whether this processor has the instructions of either.
extern "C" int fused_adam_avx512_runs() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}

extern "C" int fused_adam_avx2_runs() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
