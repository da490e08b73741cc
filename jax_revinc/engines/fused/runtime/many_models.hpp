// Many models: a block is LANES models, one in every lane. The counterpart of one_model.hpp.

// The most models of a block, and how many parameters (P) one vector holds.
constexpr int MODELS = LANES, ABREAST = 1;

// Copies the block's part of arrays to `params`, one array after the other; array a is [models
// LEAF_SIZES[a % N_LEAVES]].
static void load(F *const *arrays, int n_arrays, Block block, P *params) {
  for (int a = 0; a < n_arrays; a++)
    for (int64_t i = 0, size = LEAF_SIZES[a % N_LEAVES]; i < size; i++, params++)
      for (int lane = 0; lane < LANES; lane++)
        (*params)[lane] = arrays[a][block.model(lane) * size + i];
}

// The inverse of `load`.
static void store(const P *params, F *const *arrays, int n_arrays, Block block) {
  for (int a = 0; a < n_arrays; a++)
    for (int64_t i = 0, size = LEAF_SIZES[a % N_LEAVES]; i < size; i++, params++)
      for (int lane = 0; lane < block.n; lane++)
        arrays[a][block.model(lane) * size + i] = (*params)[lane];
}

// The value of a parameter in one of the block's models.
INLINE F of_model(const P *param, int model) { return (*param)[model]; }

// `n` parameters, at most ABREAST, as a vector, and back.
INLINE V read(const P *params, int) { return *params; }
INLINE void write(V vector, P *params, int) { *params = vector; }

// The means of the outputs over n examples of every model. The tokens of example i are at
// `row(model, i)`.
template <class Row>
static void means(const P *p, Row row, int64_t n, P *means) {
  std::memset(means, 0, sizeof(P) * N_OUTPUTS);
  for (int64_t i = 0; i < n; i += TOGETHER) {
    const int here = std::min<int64_t>(TOGETHER, n - i);
    outputs_of(p, [=](int lane, int e) { return row(lane, i + e); }, here, means, 0);
  }
  for (int i = 0; i < N_OUTPUTS; i++) means[i] = means[i] / F(n);
}

// Calls `take(model, i, output, value)` for every output of every model's example i.
template <class Row, class Take>
static void each(const P *p, Row row, int64_t n, Take take) {
  alignas(64) V outputs[TOGETHER][N_OUTPUTS];
  for (int64_t i = 0; i < n; i += TOGETHER) {
    const int here = std::min<int64_t>(TOGETHER, n - i);
    std::memset(outputs, 0, sizeof outputs);
    outputs_of(p, [=](int lane, int e) { return row(lane, i + e); }, here, outputs[0], N_OUTPUTS);
    for (int e = 0; e < here; e++)
      for (int model = 0; model < LANES; model++)
        for (int output = 0; output < N_OUTPUTS; output++)
          take(model, i + e, output, outputs[e][output][model]);
  }
}
