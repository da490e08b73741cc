// The kernel, applied to examples in every lane. Before it come `all_parts`, N_TOKENS and N_OUTPUTS.

#include <algorithm>
#include <cstring>

// Which models a block has. Lanes beyond them compute the last one again, and nobody looks at what they find.
struct Block {
  int64_t first;
  int n;
  int64_t model(int lane) const { return first + std::min(lane, n - 1); }
};

// The outputs of n examples in every lane, at most TOGETHER; `to_next` as the parts have it. The tokens of example e are at `row(lane, e)`.
template <class Row>
static void outputs_of(const P *p, Row row, int n, V *outputs, int64_t to_next) {
  alignas(64) static thread_local V kept[TOGETHER][N_MEANWHILE];
  alignas(64) I tokens[TOGETHER][N_TOKENS];
  for (int e = 0; e < n; e++)
    for (int lane = 0; lane < LANES; lane++) {
      const int32_t *of_lane = row(lane, e);
      for (int i = 0; i < N_TOKENS; i++) tokens[e][i][lane] = of_lane[i];
    }
  all_parts(p, tokens, outputs, to_next, kept, n);
}
