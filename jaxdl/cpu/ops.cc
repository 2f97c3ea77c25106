// The products of layers and Adam's step on a CPU core. jaxdl/cpu/matmul.py and step.py say why.
//
// A layer multiplies inputs [B, D] by its kernel [D, F]. The gradient of the kernel is the product
// of two factors, inputs^T @ cotangents. A few rows of it are computed at a time. Adam's step uses
// them while they are still in the core's own cache, so that parameters and moments are read and
// written once, and the gradient is never written to memory.
//
// If many numbers of a factor are zero, a first pass sets a bit for each nonzero number. Then each
// row of the result is summed in registers: for every bit, a number of the factor times a row of
// the other factor, in the order of the plain sum.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

#define ALWAYS_INLINE inline __attribute__((always_inline))
// Tells the compiler that no iteration of the next loop reads what another one writes.
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
  // For the first and the second moment: the shares of the old value and of the gradient.
  float keep_m, add_m, keep_v, add_v;
  float rate, epsilon;  // the learning rate and epsilon, both with the moments' bias corrected
  float keep;           // of the parameters, 1 without weight decay
};

struct State {
  float *params, *m, *v;
};

// The bits that mark nonzero inputs, and how many words hold `count` of them.
constexpr size_t kGroup = 32;

constexpr size_t NumGroups(size_t count) { return (count + kGroup - 1) / kGroup; }

// A vector type for unaligned access; a template argument would lose its attributes.
template <int kLanes>
struct VectorOf {
  typedef float Type
      __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));
};

// Adam's step on `count` adjacent parameters from `at` on; the gradients are multiplied by `scale`.
ALWAYS_INLINE void Step(Adam adam, float scale, const float* gradient, size_t count, State state,
                        size_t at) {
  INDEPENDENT
  for (size_t i = 0; i < count; ++i) {
    const float g = scale * gradient[i];
    const float m = adam.add_m * g + adam.keep_m * state.m[at + i];
    const float v = adam.add_v * (g * g) + adam.keep_v * state.v[at + i];
    state.m[at + i] = m;
    state.v[at + i] = v;
    state.params[at + i] =
        adam.keep * state.params[at + i] - adam.rate * (m / (std::sqrt(v) + adam.epsilon));
  }
}

// Adam's step on rows whose gradients are the same row, each times a factor of its own.
ALWAYS_INLINE void StepRows(Adam adam, Shape shape, const float* factors, const float* gradient,
                            State state) {
  for (size_t row = 0; row < shape.rows; ++row) {
    Step(adam, factors[row], gradient, shape.columns, state, row * shape.columns);
  }
}

// Adam's step on a bias, whose gradient [F] is the sum of the cotangents over the batch.
ALWAYS_INLINE void StepSum(Adam adam, Shape shape, const float* cotangents, float* gradient,
                           State state) {
  std::copy_n(cotangents, shape.columns, gradient);
  for (size_t b = 1; b < shape.batch; ++b) {
    cotangents += shape.columns;
    INDEPENDENT
    for (size_t i = 0; i < shape.columns; ++i) gradient[i] += cotangents[i];
  }
  Step(adam, 1, gradient, shape.columns, state, 0);
}

// Some rows of a panel of the gradient, kLanes * kVectors columns wide, in tiles of kRows. The last
// tile is always whole: there has to be room for it. Rows of the result are `stride` apart, and
// what is overlapped by the next one is overwritten by it.
template <int kLanes, int kRows, int kVectors>
ALWAYS_INLINE void DenseGradient(size_t batch, size_t rows, const float* inputs,
                                 const float* cotangents, float* gradient, size_t stride) {
  using Vector = typename VectorOf<kLanes>::Type;
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

// Marks nonzero inputs with bits, 32 examples to a word: [B / 32, D].
ALWAYS_INLINE void FindNonzeroExamples(Shape shape, const float* inputs, uint32_t* bits) {
  for (size_t first = 0; first < shape.batch; first += kGroup, bits += shape.rows) {
    std::fill_n(bits, shape.rows, 0);
    const size_t size = std::min(kGroup, shape.batch - first);
    for (size_t b = 0; b < size; ++b, inputs += shape.rows) {
      INDEPENDENT
      for (size_t row = 0; row < shape.rows; ++row) {
        bits[row] |= static_cast<uint32_t>(inputs[row] != 0) << b;
      }
    }
  }
}

// Adds factors[i * factor_stride] * lines[i * stride] to sums for every bit i.
template <int kLanes, int kVectors, typename Bits>
ALWAYS_INLINE void AddLines(typename VectorOf<kLanes>::Type* sums, Bits bits, const float* factors,
                            size_t factor_stride, const float* lines, size_t stride) {
  using Vector = typename VectorOf<kLanes>::Type;
  for (; bits != 0; bits &= bits - 1) {
    const size_t i = __builtin_ctzll(bits);
    const float factor = factors[i * factor_stride];
    const Vector* line = reinterpret_cast<const Vector*>(lines + i * stride);
    for (int j = 0; j < kVectors; ++j) sums[j] += factor * line[j];
  }
}

// What `DenseGradient` computes, summed up over the inputs that are not zero alone, and with `add`
// to what is there. Rows as they stand among all inputs; examples of the cotangents `stride` apart.
template <int kLanes, int kVectors>
ALWAYS_INLINE void SparseGradient(Shape shape, size_t rows, const float* inputs,
                                  const uint32_t* bits, const float* cotangents, size_t stride,
                                  bool add, float* gradient) {
  using Vector = typename VectorOf<kLanes>::Type;
  for (size_t row = 0; row < rows; ++row, gradient += shape.columns) {
    Vector sums[kVectors] = {};
    Vector* all = reinterpret_cast<Vector*>(gradient);
    if (add) {
      for (int i = 0; i < kVectors; ++i) sums[i] = all[i];
    }
    for (size_t b = 0; b < shape.batch; b += kGroup) {
      AddLines<kLanes, kVectors>(sums, bits[b / kGroup * shape.rows + row],
                                 inputs + b * shape.rows + row, shape.rows,
                                 cotangents + b * stride, stride);
    }
    for (int i = 0; i < kVectors; ++i) all[i] = sums[i];
  }
}

// Marks nonzero inputs with bits, 32 columns to a word: [B, D / 32].
ALWAYS_INLINE void FindNonzeroRows(Shape shape, const float* inputs, uint32_t* bits) {
  for (size_t b = 0; b < shape.batch; ++b, inputs += shape.rows) {
    size_t row = 0;
    for (; row + kGroup <= shape.rows; row += kGroup, ++bits) {
      uint32_t found = 0;
      for (size_t i = 0; i < kGroup; ++i) {
        found |= static_cast<uint32_t>(inputs[row + i] != 0) << i;
      }
      *bits = found;
    }
    if (row == shape.rows) continue;
    *bits = 0;
    for (size_t i = 0; row + i < shape.rows; ++i) {
      *bits |= static_cast<uint32_t>(inputs[row + i] != 0) << i;
    }
    ++bits;
  }
}

// What some rows of a kernel, up to 64, give for a panel of the outputs, with `add` added to what
// is there. Rows of the kernel are `stride` apart, and examples of the outputs `out_stride`.
template <int kLanes, int kVectors>
ALWAYS_INLINE void SparseProduct(Shape shape, size_t rows, const float* inputs,
                                 const uint32_t* bits, const float* kernel, size_t stride,
                                 bool add, float* outputs, size_t out_stride) {
  using Vector = typename VectorOf<kLanes>::Type;
  const size_t num_groups = NumGroups(shape.rows);
  for (size_t b = 0; b < shape.batch; ++b, outputs += out_stride, bits += num_groups) {
    uint64_t of_example = bits[0];
    if (rows > kGroup) of_example |= static_cast<uint64_t>(bits[1]) << kGroup;
    Vector sums[kVectors] = {};
    Vector* all = reinterpret_cast<Vector*>(outputs);
    if (add) {
      for (int i = 0; i < kVectors; ++i) sums[i] = all[i];
    }
    AddLines<kLanes, kVectors>(sums, of_example, inputs + b * shape.rows, 1, kernel, stride);
    for (int i = 0; i < kVectors; ++i) all[i] = sums[i];
  }
}

// What is compiled for a kind of processor, one function for each loop, as that leaves it all
// registers: those of the `target`, of kLanes numbers. What is dense comes in tiles of kTileRows x
// kTileVectors of them.
#define PROCESSOR(Name, kInstructions, kNumbers, kTileRows, kTileVectors)                         \
  struct Name {                                                                                   \
    static constexpr size_t kLanes = kNumbers, kRows = kTileRows;                                 \
    static constexpr size_t kColumns = kLanes * kTileVectors;                                     \
    FUNCTION(kInstructions) StepBlock(Adam adam, const float* gradient, size_t count,             \
                                      State state, size_t at) {                                   \
      Step(adam, 1, gradient, count, state, at);                                                  \
    }                                                                                             \
    FUNCTION(kInstructions) StepOuter(Adam adam, Shape shape, const float* inputs,                \
                                      const float* cotangents, State state) {                     \
      StepRows(adam, shape, inputs, cotangents, state);                                           \
    }                                                                                             \
    FUNCTION(kInstructions) StepBias(Adam adam, Shape shape, const float* cotangents,             \
                                     float* gradient, State state) {                              \
      StepSum(adam, shape, cotangents, gradient, state);                                          \
    }                                                                                             \
    FUNCTION(kInstructions) Dense(size_t batch, size_t rows, const float* inputs,                 \
                                  const float* cotangents, float* gradient, size_t stride) {      \
      DenseGradient<kNumbers, kTileRows, kTileVectors>(batch, rows, inputs, cotangents, gradient, \
                                                       stride);                                   \
    }                                                                                             \
    FUNCTION(kInstructions) FindExamples(Shape shape, const float* inputs, uint32_t* bits) {      \
      FindNonzeroExamples(shape, inputs, bits);                                                   \
    }                                                                                             \
    FUNCTION(kInstructions) FindRows(Shape shape, const float* inputs, uint32_t* bits) {          \
      FindNonzeroRows(shape, inputs, bits);                                                       \
    }                                                                                             \
    template <int kVectors>                                                                       \
    FUNCTION(kInstructions) Sparse(Shape shape, size_t rows, const float* inputs,                 \
                                   const uint32_t* bits, const float* cotangents,                 \
                                   size_t stride, bool add, float* gradient) {                    \
      SparseGradient<kNumbers, kVectors>(shape, rows, inputs, bits, cotangents, stride, add,      \
                                         gradient);                                               \
    }                                                                                             \
    template <int kVectors>                                                                       \
    FUNCTION(kInstructions) Product(Shape shape, size_t rows, const float* inputs,                \
                                    const uint32_t* bits, const float* kernel, size_t stride,     \
                                    bool add, float* outputs, size_t out_stride) {                \
      SparseProduct<kNumbers, kVectors>(shape, rows, inputs, bits, kernel, stride, add, outputs,  \
                                        out_stride);                                              \
    }                                                                                             \
  };
#define FUNCTION(kInstructions) __attribute__((noinline, target(kInstructions))) static void

// For 32 vector registers, and for 16.
PROCESSOR(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", 16, 4, 4)
PROCESSOR(Avx2, "avx2,fma", 8, 6, 2)
#undef FUNCTION
#undef PROCESSOR

// Cuts columns into panels that are eight vectors wide, and what is left one, two, four or eight.
// Calls f(first, count, vectors) for each, the last one first, `vectors` as a constant.
template <size_t kLanes, typename Function>
void ForEachPanel(size_t columns, Function f) {
  constexpr size_t kWide = 8 * kLanes;
  for (size_t end = columns; end > 0;) {
    const size_t first = (end - 1) / kWide * kWide, count = end - first;
    if (count <= kLanes) {
      f(first, count, std::integral_constant<int, 1>());
    } else if (count <= 2 * kLanes) {
      f(first, count, std::integral_constant<int, 2>());
    } else if (count <= 4 * kLanes) {
      f(first, count, std::integral_constant<int, 4>());
    } else {
      f(first, count, std::integral_constant<int, 8>());
    }
    end = first;
  }
}

// Copies `columns` numbers of each of B lines to panels [columns / width, B, width], the last one
// filled up with zeros.
ALWAYS_INLINE void Pack(const float* lines, size_t stride, size_t batch, size_t columns,
                        size_t width, float* packed) {
  for (size_t first = 0; first < columns; first += width) {
    const size_t count = std::min(width, columns - first);
    for (size_t b = 0; b < batch; ++b, packed += width) {
      const float* line = lines + b * stride + first;
      if (count == width) {
        std::memcpy(packed, line, sizeof(float) * width);
      } else {
        std::memcpy(packed, line, sizeof(float) * count);
        std::fill(packed + count, packed + width, 0.0f);
      }
    }
  }
}

// Memory of this thread for `count` numbers. It is kept, because allocating much of it is slow.
float* Workspace(size_t count) {
  // Loading a vector that crosses the border between two cache lines takes twice as long.
  struct alignas(64) CacheLine {
    float numbers[16];
  };
  static thread_local std::vector<CacheLine> workspace(1);
  if (workspace.size() * 16 < count) workspace.resize((count + 15) / 16);
  return workspace.data()->numbers;
}

size_t RoundUp(size_t number, size_t unit) { return (number + unit - 1) / unit * unit; }

// A factor with a smaller share of nonzero numbers counts as sparse: adding a number on its own
// takes two to three times as long as adding it in a tile.
constexpr float kSparse = 0.42f;

// The share of nonzero numbers among [lines, count], estimated from some of the lines.
float Density(const float* numbers, size_t lines, size_t count) {
  const size_t step = std::max<size_t>(1, lines / std::max<size_t>(2, 4096 / count));
  size_t nonzero = 0, counted = 0;
  for (size_t line = 0; line < lines; line += step, counted += count) {
    for (size_t i = 0; i < count; ++i) nonzero += numbers[line * count + i] != 0;
  }
  return static_cast<float>(nonzero) / counted;
}

// The product of two factors, inputs^T @ cotangents, computed a few rows at a time.
template <typename Processor>
class Gradient {
 public:
  // `density` is the share of nonzero inputs.
  Gradient(Shape shape, const float* inputs, const float* cotangents, float density)
      : shape_(shape), inputs_(inputs), cotangents_(cotangents), is_sparse_(density < kSparse) {
    const size_t bits_size = RoundUp(NumGroups(shape.batch) * shape.rows, 16);
    const size_t packed_size = shape.batch * RoundUp(shape.columns, kWidest);
    const size_t rows_size = RoundUp(block() * shape.columns + kWidest, 16);
    float* workspace = Workspace(bits_size + packed_size + rows_size + block() * shape.batch);
    bits_ = reinterpret_cast<uint32_t*>(workspace);
    packed_cotangents_ = workspace + bits_size;
    rows_ = packed_cotangents_ + packed_size;
    packed_inputs_ = rows_ + rows_size;

    if (is_sparse_) {
      Processor::FindExamples(shape, inputs, bits_);
      ForEachPanel<Processor::kLanes>(shape.columns, [&](size_t first, size_t count, auto vectors) {
        const size_t width = vectors * Processor::kLanes;
        // Read where they are, unless a vector would reach beyond the end, or lines are a multiple
        // of a kilobyte apart, which share few places of the first cache.
        if (first + width == shape.columns) in_place_ = first == 0 || shape.columns % 256 != 0;
        if (in_place_) return;
        Pack(cotangents + first, shape.columns, shape.batch, count, width,
             packed_cotangents_ + first * shape.batch);
      });
    } else {
      Pack(cotangents, shape.columns, shape.batch, shape.columns, Processor::kColumns,
           packed_cotangents_);
    }
  }

  // How many rows to compute at a time: a thousand numbers or more, and where the cotangents
  // outgrow a core's first cache (32 KB) several tiles for each panel, the gradient then in the
  // second cache.
  size_t block() const {
    if (shape_.batch * shape_.columns > 8192) return 8 * Processor::kRows;
    return Processor::kRows * std::max<size_t>(1, 1024 / (Processor::kRows * shape_.columns));
  }

  // Returns some rows of the product; there is memory for one block of them. The last panel comes
  // first: what sticks out of it are places of the first one, in the next row.
  const float* Rows(size_t first, size_t count) {
    if (is_sparse_) {
      ForEachPanel<Processor::kLanes>(shape_.columns, [&](size_t column, size_t, auto vectors) {
        SparsePanel<vectors.value>(first, count, column);
      });
      return rows_;
    }
    Pack(inputs_ + first, shape_.rows, shape_.batch, count, Processor::kRows, packed_inputs_);
    for (size_t end = RoundUp(shape_.columns, Processor::kColumns); end > 0;) {
      end -= Processor::kColumns;
      Processor::Dense(shape_.batch, count, packed_inputs_, packed_cotangents_ + end * shape_.batch,
                       rows_ + end, shape_.columns);
    }
    return rows_;
  }

 private:
  static constexpr size_t kWidest = 8 * Processor::kLanes;

  template <int kVectors>
  void SparsePanel(size_t first, size_t count, size_t column) {
    constexpr size_t kWidth = kVectors * Processor::kLanes;
    const float* cotangents = packed_cotangents_ + column * shape_.batch;
    if (in_place_) cotangents = cotangents_ + column;
    const size_t stride = in_place_ ? shape_.columns : kWidth;
    // Some examples at a time, whose cotangents stay in a core's first cache; all at once
    // where a row's places reach into the next one's, which would be added to those.
    const size_t step = shape_.columns < kWidth ? shape_.batch : 2 * kGroup;
    for (size_t b = 0; b < shape_.batch; b += step) {
      const Shape some{std::min(step, shape_.batch - b), shape_.rows, shape_.columns};
      Processor::template Sparse<kVectors>(some, count, inputs_ + b * shape_.rows + first,
                                           bits_ + b / kGroup * shape_.rows + first,
                                           cotangents + b * stride, stride, b > 0, rows_ + column);
    }
  }

  const Shape shape_;
  const float *const inputs_, *const cotangents_;
  const bool is_sparse_;
  bool in_place_ = false;
  uint32_t* bits_;
  float *packed_cotangents_, *rows_, *packed_inputs_;
};

// Prefetches state that does not fit the core's own cache while its gradient is computed.
void Prefetch(State state, size_t first, size_t end) {
  for (size_t i = first; i < end; i += 16) {
    __builtin_prefetch(state.m + i, 1);
    __builtin_prefetch(state.v + i, 1);
    __builtin_prefetch(state.params + i, 1);
  }
}

template <typename Processor>
void StepKernel(Adam adam, Shape shape, const float* inputs, const float* cotangents, State state) {
  if (shape.batch == 1 && shape.columns % 16 == 0) {
    // With one example the gradient is a single product, so its rows need no sums.
    Processor::StepOuter(adam, shape, inputs, cotangents, state);
    return;
  }
  if (shape.rows * shape.columns == 0) return;
  Gradient<Processor> gradient(shape, inputs, cotangents,
                               Density(inputs, shape.batch, shape.rows));
  const size_t block = gradient.block();
  const bool prefetch = shape.rows * shape.columns > 262144;
  for (size_t first = 0; first < shape.rows; first += block) {
    const size_t count = std::min(block, shape.rows - first), at = first * shape.columns;
    if (prefetch) Prefetch(state, at, at + count * shape.columns);
    Processor::StepBlock(adam, gradient.Rows(first, count), count * shape.columns, state, at);
  }
}

// Writes inputs^T @ cotangents [D, F]. If it is the cotangents that are sparse, as in front of max
// pooling, it is computed as the transpose of cotangents^T @ inputs.
template <typename Processor>
void Outer(Shape shape, const float* inputs, const float* cotangents, float* outputs) {
  if (shape.rows * shape.columns == 0) return;
  const Shape transposed{shape.batch, shape.columns, shape.rows};
  const float of_inputs = Density(inputs, shape.batch, shape.rows);
  const float of_cotangents = Density(cotangents, shape.batch, shape.columns);
  const bool transpose = of_cotangents < kSparse && of_cotangents < of_inputs;
  Gradient<Processor> product(transpose ? transposed : shape, transpose ? cotangents : inputs,
                              transpose ? inputs : cotangents,
                              transpose ? of_cotangents : of_inputs);
  const size_t num_rows = transpose ? shape.columns : shape.rows;
  const size_t width = transpose ? shape.rows : shape.columns;
  for (size_t first = 0; first < num_rows; first += product.block()) {
    const size_t count = std::min(product.block(), num_rows - first);
    const float* rows = product.Rows(first, count);
    if (transpose) {
      for (size_t i = 0; i < width; ++i) {
        for (size_t row = 0; row < count; ++row) {
          outputs[i * num_rows + first + row] = rows[row * width + i];
        }
      }
    } else {
      std::copy_n(rows, count * width, outputs + first * width);
    }
  }
}

// A panel of the product of inputs and a kernel: `count` columns, from `column` on.
template <typename Processor, int kVectors>
void MultiplyPanel(Shape shape, const float* inputs, const uint32_t* bits, const float* kernel,
                   size_t column, size_t count, float* workspace, float* outputs) {
  constexpr size_t kWidth = kVectors * Processor::kLanes, kRows = 2 * kGroup;
  const bool is_whole = count == kWidth;
  float* sums = is_whole ? outputs + column : workspace + kRows * kWidth;
  const size_t out_stride = is_whole ? shape.columns : kWidth;
  for (size_t row = 0; row < shape.rows; row += kRows) {
    const size_t num_rows = std::min(kRows, shape.rows - row);
    const float* of_rows = kernel + row * shape.columns + column;
    // Where they are or packed, as of `Gradient`; for few examples packed only if it has to be.
    // What is then read of the line after, of which there has to be enough, is not used.
    const bool is_inside = is_whole || (row + kRows < shape.rows && 2 * shape.columns >= kWidth);
    const bool is_spread = count == shape.columns || shape.columns % 256 != 0;
    const bool in_place = shape.batch < 64 ? is_inside : is_whole && is_spread;
    if (!in_place) Pack(of_rows, shape.columns, num_rows, count, kWidth, workspace);
    Processor::template Product<kVectors>(shape, num_rows, inputs + row, bits + row / kGroup,
                                          in_place ? of_rows : workspace,
                                          in_place ? shape.columns : kWidth, row > 0, sums,
                                          out_stride);
  }
  if (is_whole || shape.rows == 0) return;
  for (size_t b = 0; b < shape.batch; ++b) {
    std::copy_n(sums + b * kWidth, count, outputs + b * shape.columns + column);
  }
}

template <typename Processor>
void Multiply(Shape shape, const float* inputs, const float* kernel, float* outputs) {
  if (shape.rows == 0) std::fill_n(outputs, shape.batch * shape.columns, 0.0f);
  constexpr size_t kWidest = 8 * Processor::kLanes;
  const size_t bits_size = RoundUp(shape.batch * NumGroups(shape.rows), 16);
  float* workspace = Workspace(bits_size + (2 * kGroup + shape.batch) * kWidest);
  uint32_t* bits = reinterpret_cast<uint32_t*>(workspace);
  Processor::FindRows(shape, inputs, bits);
  ForEachPanel<Processor::kLanes>(shape.columns, [&](size_t column, size_t count, auto vectors) {
    MultiplyPanel<Processor, vectors.value>(shape, inputs, bits, kernel, column, count,
                                            workspace + bits_size, outputs);
  });
}

using Matrix = ffi::BufferR2<ffi::F32>;
using Vector = ffi::BufferR1<ffi::F32>;

bool IsOf(const Matrix& matrix, size_t rows, size_t columns) {
  const auto found = matrix.dimensions();
  return static_cast<size_t>(found[0]) == rows && static_cast<size_t>(found[1]) == columns;
}

// The memory of a result that starts with the values of an argument; usually it is the same memory.
template <typename Buffer>
float* From(const Buffer& before, Buffer after) {
  if (after.typed_data() != before.typed_data()) {
    std::memcpy(after.typed_data(), before.typed_data(), before.size_bytes());
  }
  return after.typed_data();
}

// Args: params, m, v of a kernel [D, F], and of its bias [F]; inputs [B, D]; cotangents [B, F];
// rate, epsilon, keep, b1, b2 [5].
template <typename Processor>
ffi::Error StepLayer(Matrix params, Matrix m, Matrix v, Vector bias, Vector bias_m, Vector bias_v,
                     Matrix inputs, Matrix cotangents, Vector scalars,
                     ffi::Result<Matrix> new_params, ffi::Result<Matrix> new_m,
                     ffi::Result<Matrix> new_v, ffi::Result<Vector> new_bias,
                     ffi::Result<Vector> new_bias_m, ffi::Result<Vector> new_bias_v) {
  const Shape shape{static_cast<size_t>(inputs.dimensions()[0]),
                    static_cast<size_t>(inputs.dimensions()[1]),
                    static_cast<size_t>(cotangents.dimensions()[1])};
  bool fits = IsOf(cotangents, shape.batch, shape.columns) && scalars.element_count() == 5;
  for (const Matrix& matrix : {params, m, v, *new_params, *new_m, *new_v}) {
    fits &= IsOf(matrix, shape.rows, shape.columns);
  }
  for (const Vector& vector : {bias, bias_m, bias_v, *new_bias, *new_bias_m, *new_bias_v}) {
    fits &= vector.element_count() == shape.columns;
  }
  if (!fits || shape.batch == 0) {
    return ffi::Error::InvalidArgument("adam_step: shapes that do not belong together");
  }
  const float* scalar = scalars.typed_data();
  const float b1 = scalar[3], b2 = scalar[4];
  const Adam adam{b1, 1 - b1, b2, 1 - b2, scalar[0], scalar[1], scalar[2]};
  const State kernel{From(params, *new_params), From(m, *new_m), From(v, *new_v)};
  StepKernel<Processor>(adam, shape, inputs.typed_data(), cotangents.typed_data(), kernel);
  const State of_bias{From(bias, *new_bias), From(bias_m, *new_bias_m), From(bias_v, *new_bias_v)};
  Processor::StepBias(adam, shape, cotangents.typed_data(), Workspace(shape.columns), of_bias);
  return ffi::Error::Success();
}

auto StepBinding() {
  return ffi::Ffi::Bind()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Vector>()
      .Arg<Vector>()
      .Arg<Vector>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Vector>()
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Vector>()
      .Ret<Vector>()
      .Ret<Vector>();
}

// Args: inputs [B, D]; cotangents [B, F]. Returns [D, F].
template <typename Processor>
ffi::Error MultiplyOuter(Matrix inputs, Matrix cotangents, ffi::Result<Matrix> outputs) {
  const Shape shape{static_cast<size_t>(inputs.dimensions()[0]),
                    static_cast<size_t>(inputs.dimensions()[1]),
                    static_cast<size_t>(cotangents.dimensions()[1])};
  if (!IsOf(cotangents, shape.batch, shape.columns) ||
      !IsOf(*outputs, shape.rows, shape.columns)) {
    return ffi::Error::InvalidArgument("outer_product: shapes that do not belong together");
  }
  Outer<Processor>(shape, inputs.typed_data(), cotangents.typed_data(), outputs->typed_data());
  return ffi::Error::Success();
}

// Args: inputs [B, D]; kernel [D, F]. Returns [B, F].
template <typename Processor>
ffi::Error MultiplySparse(Matrix inputs, Matrix kernel, ffi::Result<Matrix> outputs) {
  const Shape shape{static_cast<size_t>(inputs.dimensions()[0]),
                    static_cast<size_t>(inputs.dimensions()[1]),
                    static_cast<size_t>(kernel.dimensions()[1])};
  if (!IsOf(kernel, shape.rows, shape.columns) || !IsOf(*outputs, shape.batch, shape.columns)) {
    return ffi::Error::InvalidArgument("sparse_product: shapes that do not belong together");
  }
  Multiply<Processor>(shape, inputs.typed_data(), kernel.typed_data(), outputs->typed_data());
  return ffi::Error::Success();
}

// The binding of both products.
auto ProductBinding() { return ffi::Ffi::Bind().Arg<Matrix>().Arg<Matrix>().Ret<Matrix>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(adam_step_avx512, StepLayer<Avx512>, StepBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(adam_step_avx2, StepLayer<Avx2>, StepBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(outer_product_avx512, MultiplyOuter<Avx512>, ProductBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(outer_product_avx2, MultiplyOuter<Avx2>, ProductBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_product_avx512, MultiplySparse<Avx512>, ProductBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sparse_product_avx2, MultiplySparse<Avx2>, ProductBinding());

// Whether this processor has the instructions of the `target`s above.
extern "C" int runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

extern "C" int runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
