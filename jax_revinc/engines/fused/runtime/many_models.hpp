// A block is LANES models, one in every lane.

// The most models of a block, and how many numbers of P a vector holds.
constexpr int MODELS = LANES, ABREAST = 1;

// The block's numbers, one array after the other; array a is [models LEAF_SIZES[a % N_LEAVES]].
static void load(F *const *arrays, int n_arrays, Block block, P *numbers) {
  for (int a = 0; a < n_arrays; a++)
    for (int64_t i = 0, size = LEAF_SIZES[a % N_LEAVES]; i < size; i++, numbers++)
      for (int lane = 0; lane < LANES; lane++) (*numbers)[lane] = arrays[a][block.model(lane) * size + i];
}

// The inverse.
static void store(const P *numbers, F *const *arrays, int n_arrays, Block block) {
  for (int a = 0; a < n_arrays; a++)
    for (int64_t i = 0, size = LEAF_SIZES[a % N_LEAVES]; i < size; i++, numbers++)
      for (int lane = 0; lane < block.n; lane++) arrays[a][block.model(lane) * size + i] = (*numbers)[lane];
}

// What a number is in one of the block's models.
INLINE F of_model(const P *number, int model) { return (*number)[model]; }

// `n` numbers, at most ABREAST, as a vector, and back.
INLINE V read(const P *numbers, int) { return *numbers; }
INLINE void write(V vector, P *numbers, int) { *numbers = vector; }

// The means of the outputs over n examples of every model. The tokens of example i are at `row(model, i)`.
template <class Row>
static void means(const P *p, Row row, int64_t n, P *means) {
  std::memset(means, 0, sizeof(P) * N_OUTPUTS);
  for (int64_t i = 0; i < n; i += TOGETHER) {
    const int here = std::min<int64_t>(TOGETHER, n - i);
    outputs_of(p, [=](int lane, int e) { return row(lane, i + e); }, here, means, 0);
  }
  for (int i = 0; i < N_OUTPUTS; i++) means[i] = means[i] / F(n);
}

// Calls `take(model, i, output, value)` with what every output is in every model's example i.
template <class Row, class Take>
static void each(const P *p, Row row, int64_t n, Take take) {
  alignas(64) V outputs[TOGETHER][N_OUTPUTS];
  for (int64_t i = 0; i < n; i += TOGETHER) {
    const int here = std::min<int64_t>(TOGETHER, n - i);
    std::memset(outputs, 0, sizeof outputs);
    outputs_of(p, [=](int lane, int e) { return row(lane, i + e); }, here, outputs[0], N_OUTPUTS);
    for (int e = 0; e < here; e++)
      for (int model = 0; model < LANES; model++)
        for (int output = 0; output < N_OUTPUTS; output++) take(model, i + e, output, outputs[e][output][model]);
  }
}
