// Losses and gradients of one model or of many. Before it come `example`, N_PARAMETERS, N_TOKENS, N_OUTPUTS and
// N_SCRATCH.

#include <algorithm>
#include <cstring>

// The sum of N numbers, a power of two, by halves.
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

// Adds the outputs of LANES examples, one in every lane, to `sums`. Their tokens are at `row(lane)`.
template <class P, class Row>
static void add_examples(const P *p, Row row, V *sums) {
  alignas(64) static thread_local V scratch[N_SCRATCH];
  alignas(64) I tokens[N_TOKENS];
  for (int lane = 0; lane < LANES; lane++) {
    const int32_t *of_lane = row(lane);
    for (int i = 0; i < N_TOKENS; i++) tokens[i][lane] = of_lane[i];
  }
  example(p, tokens, sums, scratch);
}

// The means of the outputs over the n examples of one model. Tokens are [n N_TOKENS].
static void means_of_one(const F *p, const int32_t *tokens, int64_t n, F *means) {
  alignas(64) static thread_local V sums[N_OUTPUTS], rest[N_OUTPUTS];
  std::memset(sums, 0, sizeof sums);
  for (int64_t first = 0; first < n; first += LANES) {
    const auto row = [=](int lane) { return tokens + std::min(first + lane, n - 1) * N_TOKENS; };
    if (first + LANES <= n) {
      add_examples(p, row, sums);
    } else {  // the last example fills the lanes that are left, and counts once
      I is_first{};
      for (int lane = 0; lane < n - first; lane++) is_first[lane] = -1;
      std::memset(rest, 0, sizeof rest);
      add_examples(p, row, rest);
      for (int i = 0; i < N_OUTPUTS; i++) sums[i] += is_first ? rest[i] : V{};
    }
  }
  for (int i = 0; i < N_OUTPUTS; i++) means[i] = sum_of<LANES>((const F *)&sums[i]) / F(n);
}

// The same for LANES models, one in every lane. The tokens of example i are at `row(i, lane)`.
template <class Row>
static void means_of_many(const V *p, Row row, int64_t n, V *means) {
  std::memset(means, 0, sizeof(V) * N_OUTPUTS);
  for (int64_t i = 0; i < n; i++) add_examples(p, [=](int lane) { return row(i, lane); }, means);
  for (int i = 0; i < N_OUTPUTS; i++) means[i] = means[i] / F(n);
}
