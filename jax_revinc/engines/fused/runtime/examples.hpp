// The kernel, applied to an example in every lane. Before it come `example`, N_TOKENS, N_OUTPUTS and N_SCRATCH.

#include <algorithm>
#include <cstring>

// Which models a block has. Lanes beyond them compute the last one again, and nobody looks at what they find.
struct Block {
  int64_t first;
  int n;
  int64_t model(int lane) const { return first + std::min(lane, n - 1); }
};

// The outputs of LANES examples. Their tokens are at `row(lane)`.
template <class Row>
static void outputs_of(const P *p, Row row, V *outputs) {
  alignas(64) static thread_local V scratch[N_SCRATCH];
  alignas(64) I tokens[N_TOKENS];
  for (int lane = 0; lane < LANES; lane++) {
    const int32_t *of_lane = row(lane);
    for (int i = 0; i < N_TOKENS; i++) tokens[i][lane] = of_lane[i];
  }
  example(p, tokens, outputs, scratch);
}
