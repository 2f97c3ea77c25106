// The gradient of a dense layer's kernel and Adam's step on it, in one pass on a CPU core.
//
// The gradient is a product of two factors, inputs^T [D, B] @ cotangents [B, F]. XLA writes it to
// memory and reads it back three times, once for each of the moments and the parameters. Here a few
// rows of it are computed at a time, in tiles that are summed up in registers, and used while a
// core's own cache still has them, so that a step reads and writes parameters and moments once and
// the gradient never. See jaxdl/fused_adam.py, which also says what the reference is.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

#define ALWAYS_INLINE inline __attribute__((always_inline))
// Of the loop that follows: no iteration needs what another one writes.
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

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

// The step of `count` neighbouring parameters from `at` on, with gradients `scale` times these.
ALWAYS_INLINE void Step(Adam adam, float scale, const float* gradient, size_t count, State state,
                        size_t at) {
  INDEPENDENT
  for (size_t i = 0; i < count; ++i) {
    const float g = scale * gradient[i];
    const float m = adam.add_m * g + adam.keep_m * state.m[at + i];
    const float v = adam.add_v * (g * g) + adam.keep_v * state.v[at + i];
    state.new_m[at + i] = m;
    state.new_v[at + i] = v;
    state.new_params[at + i] =
        adam.keep * state.params[at + i] - adam.rate * (m / (std::sqrt(v) + adam.epsilon));
  }
}

// The steps of rows of which each has the same gradient but for its own factor.
ALWAYS_INLINE void StepRows(Adam adam, Shape shape, const float* factors, const float* gradient,
                            State state) {
  for (size_t row = 0; row < shape.rows; ++row) {
    Step(adam, factors[row], gradient, shape.columns, state, row * shape.columns);
  }
}

// Some rows of a panel of the gradient, kLanes * kVectors columns wide, in tiles of kRows. The last
// tile is always whole: there has to be room for it. Rows of the result are `stride` apart, and
// what is overlapped by the next one is overwritten by it.
template <int kLanes, int kRows, int kVectors>
ALWAYS_INLINE void Product(size_t batch, size_t rows, const float* inputs, const float* cotangents,
                           float* gradient, size_t stride) {
  typedef float Vector
      __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));
  for (size_t first = 0; first < rows; first += kRows, inputs += kRows * batch) {
    Vector sums[kRows][kVectors] = {};
    for (size_t b = 0; b < batch; ++b) {
      Vector of_columns[kVectors];
      for (int i = 0; i < kVectors; ++i) {
        of_columns[i] = *reinterpret_cast<const Vector*>(cotangents + (b * kVectors + i) * kLanes);
      }
      for (int row = 0; row < kRows; ++row) {
        const float of_row = inputs[b * kRows + row];
        for (int i = 0; i < kVectors; ++i) sums[row][i] += of_row * of_columns[i];
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kVectors; ++i) {
        *reinterpret_cast<Vector*>(gradient + (first + row) * stride + i * kLanes) = sums[row][i];
      }
    }
  }
}

// What is compiled for a kind of processor, one function for each loop, as that leaves it all
// registers: those of the `target`, of kLanes numbers, in tiles of kTileRows x kVectors of them.
#define PROCESSOR(Name, kInstructions, kLanes, kTileRows, kVectors)                               \
  struct Name {                                                                                   \
    static constexpr size_t kRows = kTileRows, kColumns = kLanes * kVectors;                      \
    __attribute__((noinline, target(kInstructions))) static void StepBlock(                       \
        Adam adam, const float* gradient, size_t count, State state, size_t at) {                 \
      Step(adam, 1, gradient, count, state, at);                                                  \
    }                                                                                             \
    __attribute__((noinline, target(kInstructions))) static void StepOuter(                       \
        Adam adam, Shape shape, const float* inputs, const float* cotangents, State state) {      \
      StepRows(adam, shape, inputs, cotangents, state);                                           \
    }                                                                                             \
    __attribute__((noinline, target(kInstructions))) static void Panel(                           \
        size_t batch, size_t rows, const float* inputs, const float* cotangents, float* gradient, \
        size_t stride) {                                                                          \
      Product<kLanes, kTileRows, kVectors>(batch, rows, inputs, cotangents, gradient, stride);    \
    }                                                                                             \
  };

// With 32 registers, and with 16.
PROCESSOR(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", 16, 4, 4)
PROCESSOR(Avx2, "avx2,fma", 8, 6, 2)
#undef PROCESSOR

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

// Memory of this thread for `count` numbers, kept, as much of it is slow to come by.
float* Workspace(size_t count) {
  // A vector that crosses the border between two cache lines takes twice as long to load.
  struct alignas(64) CacheLine {
    float numbers[16];
  };
  static thread_local std::vector<CacheLine> workspace;
  if (workspace.size() * 16 < count) workspace.resize((count + 15) / 16);
  return workspace.data()->numbers;
}

// Asks for state that outgrows a core's own cache while its gradient is computed.
void Prefetch(State state, size_t first, size_t end) {
  for (size_t i = first; i < end; i += 16) {
    __builtin_prefetch(state.m + i, 1);
    __builtin_prefetch(state.v + i, 1);
    __builtin_prefetch(state.params + i, 1);
  }
}

template <typename Processor>
void Update(Adam adam, Shape shape, const float* inputs, const float* cotangents, State state) {
  constexpr size_t kRows = Processor::kRows, kColumns = Processor::kColumns;
  if (shape.batch == 1 && shape.columns % 16 == 0) {
    // The gradient is no sum, and its rows have no remainders.
    Processor::StepOuter(adam, shape, inputs, cotangents, state);
    return;
  }
  if (shape.rows * shape.columns == 0) return;
  // Rows of which the gradient is computed before their steps are made: a thousand numbers or more,
  // and where the cotangents outgrow a core's first cache (32 KB) several tiles for each panel, the
  // gradient then in the second cache.
  const size_t tiles = shape.batch * shape.columns > 8192
                           ? 8
                           : std::max<size_t>(1, 1024 / (kRows * shape.columns));
  const size_t block = kRows * tiles;
  const size_t panels = (shape.columns + kColumns - 1) / kColumns;
  const bool prefetch = shape.rows * shape.columns > 262144;
  const size_t cotangents_size = shape.batch * panels * kColumns;
  const size_t gradient_size = block * shape.columns + kColumns;
  float* packed_cotangents = Workspace(cotangents_size + gradient_size + block * shape.batch);
  float* gradient = packed_cotangents + cotangents_size;
  float* packed_inputs = gradient + gradient_size;

  Pack<kColumns>(cotangents, shape.columns, shape.batch, shape.columns, packed_cotangents);
  for (size_t first = 0; first < shape.rows; first += block) {
    const size_t count = std::min(block, shape.rows - first), at = first * shape.columns;
    if (prefetch) Prefetch(state, at, at + count * shape.columns);
    Pack<kRows>(inputs + first, shape.rows, shape.batch, count, packed_inputs);
    // The last panel first: what sticks out of it are places of the first one, in the next row.
    for (size_t panel = panels; panel-- > 0;) {
      Processor::Panel(shape.batch, count, packed_inputs,
                       packed_cotangents + panel * shape.batch * kColumns,
                       gradient + panel * kColumns, shape.columns);
    }
    Processor::StepBlock(adam, gradient, count * shape.columns, state, at);
  }
}

using Matrix = ffi::BufferR2<ffi::F32>;
using Vector = ffi::BufferR1<ffi::F32>;

// Args: params, m, v [D, F]; inputs [B, D]; cotangents [B, F]; rate, epsilon, keep [3].
template <typename Processor>
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
  Update<Processor>(adam, shape, inputs.typed_data(), cotangents.typed_data(), state);
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(fused_adam_avx512, Call<Avx512>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fused_adam_avx2, Call<Avx2>, Binding());

// Whether this processor has the instructions of either, those in the `target`s above.
extern "C" int fused_adam_avx2_runs() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

extern "C" int fused_adam_avx512_runs() {
  return fused_adam_avx2_runs() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
