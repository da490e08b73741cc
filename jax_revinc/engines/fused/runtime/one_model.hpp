// One model: a block is one model, whose lanes are examples while outputs are computed, and
// parameters while these are updated. The functions are described in many_models.hpp.

constexpr int MODELS = 1, ABREAST = LANES;

static void load(F *const *arrays, int n_arrays, Block block, P *params) {
  for (int a = 0; a < n_arrays; a++) {
    const int64_t size = LEAF_SIZES[a % N_LEAVES];
    params = std::copy_n(arrays[a] + block.first * size, size, params);
  }
}

static void store(const P *params, F *const *arrays, int n_arrays, Block block) {
  for (int a = 0; a < n_arrays; a++) {
    const int64_t size = LEAF_SIZES[a % N_LEAVES];
    std::copy_n(params, size, arrays[a] + block.first * size);
    params += size;
  }
}

INLINE F of_model(const P *param, int) { return *param; }

INLINE V read(const P *params, int n) {
  V vector{};
  std::memcpy(&vector, params, n * sizeof(F));
  return vector;
}
INLINE void write(V vector, P *params, int n) { std::memcpy(params, &vector, n * sizeof(F)); }

// The sum of N elements, a power of two, by halves.
template <int N>
INLINE F sum_of(const F *x) {
  if constexpr (N == 1) {
    return x[0];
  } else {
    F half[N / 2];
    for (int i = 0; i < N / 2; i++) half[i] = x[i] + x[i + N / 2];
    return sum_of<N / 2>(half);
  }
}

template <class Row>
static void means(const P *p, Row row, int64_t n, P *means) {
  alignas(64) static thread_local V sums[N_OUTPUTS], rest[N_OUTPUTS];
  const auto from = [=](int64_t first) {
    return [=](int lane, int e) { return row(0, std::min(first + e * LANES + lane, n - 1)); };
  };
  std::memset(sums, 0, sizeof sums);
  int64_t first = 0;
  for (int here; (here = std::min<int64_t>(TOGETHER, (n - first) / LANES)); first += here * LANES)
    outputs_of(p, from(first), here, sums, 0);
  if (first < n) {  // the last example fills the spare lanes, and counts once
    I counts{};
    for (int lane = 0; lane < n - first; lane++) counts[lane] = -1;
    std::memset(rest, 0, sizeof rest);
    outputs_of(p, from(first), 1, rest, 0);
    for (int i = 0; i < N_OUTPUTS; i++) sums[i] += counts ? rest[i] : V{};
  }
  for (int i = 0; i < N_OUTPUTS; i++) means[i] = sum_of<LANES>((const F *)&sums[i]) / F(n);
}

template <class Row, class Take>
static void each(const P *p, Row row, int64_t n, Take take) {
  alignas(64) V outputs[TOGETHER][N_OUTPUTS];
  for (int64_t first = 0; first < n; first += TOGETHER * LANES) {
    const int64_t here = std::min<int64_t>(TOGETHER * LANES, n - first);
    const auto of_lane = [=](int lane, int e) {
      return row(0, std::min(first + e * LANES + lane, n - 1));
    };
    std::memset(outputs, 0, sizeof outputs);
    outputs_of(p, of_lane, (here + LANES - 1) / LANES, outputs[0], N_OUTPUTS);
    for (int i = 0; i < here; i++)
      for (int output = 0; output < N_OUTPUTS; output++)
        take(0, first + i, output, outputs[i / LANES][output][i % LANES]);
  }
}
