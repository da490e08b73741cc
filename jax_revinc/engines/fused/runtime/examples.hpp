// The kernel, applied to examples in every lane. Defined before: `all_segments`, N_TOKENS,
// N_OUTPUTS.

#include <algorithm>
#include <cstring>

// The models that are computed together. Spare lanes repeat the last model, and their results are
// ignored.
struct Block {
  int64_t first;
  int n;
  int64_t model(int lane) const { return first + std::min(lane, n - 1); }
};

// The outputs of n examples in every lane, at most TOGETHER. The tokens of example e are at
// `row(lane, e)`; `to_next` is that of SEGMENT_ARGUMENTS.
template <class Row>
static void outputs_of(const P *p, Row row, int n, V *outputs, int64_t to_next) {
  alignas(64) static thread_local V example_slots[TOGETHER][N_SLOTS];
  alignas(64) I tokens[TOGETHER][N_TOKENS];
  for (int e = 0; e < n; e++)
    for (int lane = 0; lane < LANES; lane++) {
      const int32_t *of_lane = row(lane, e);
      for (int i = 0; i < N_TOKENS; i++) tokens[e][i][lane] = of_lane[i];
    }
  all_segments(p, tokens, outputs, to_next, example_slots, n);
}
