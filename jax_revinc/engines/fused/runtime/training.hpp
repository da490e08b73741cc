// Updates in a row. Before it come N_KEPT, how many numbers the optimizer keeps of every parameter, N_SHARED, how many
// all parameters of a model share, and `update`.

constexpr int N_ARRAYS = N_LEAVES * (1 + N_KEPT);

// Applies `rule` to `n` parameters, at most ABREAST, from the i-th on. It turns a parameter, what is kept of it, its
// gradient and what is shared into what the first two are after the update. `numbers` are all parameters, then what is
// kept.
template <class Rule>
INLINE void update_some(Rule rule, int i, int n, P *numbers, const P *gradient, const V *shared) {
  V before[2 + N_KEPT + N_SHARED], after[1 + N_KEPT];
  for (int k = 0; k <= N_KEPT; k++) before[k] = read(numbers + k * N_PARAMETERS + i, n);
  before[1 + N_KEPT] = read(gradient + i, n);
  for (int k = 0; k < N_SHARED; k++) before[2 + N_KEPT + k] = shared[k];
  rule(before, after);
  for (int k = 0; k <= N_KEPT; k++) write(after[k], numbers + k * N_PARAMETERS + i, n);
}

// The same from `begin` to `end`, exclusive.
template <class Rule>
INLINE void update_range(Rule rule, int begin, int end, P *numbers, const P *gradient, const V *shared) {
  int i = begin;
  for (; i + ABREAST <= end; i += ABREAST) update_some(rule, i, ABREAST, numbers, gradient, shared);
  if (i < end) update_some(rule, i, end - i, numbers, gradient, shared);
}

static void update(P *numbers, const P *gradient, const V *shared);

// From the parameters and what is kept of them in N_ARRAYS arrays, what is shared [capacity N_SHARED], sequences
// [rows N_TOKENS], batches [capacity batch] of their rows, and the number of updates, to the first after these and each batch's
// loss before its update. All but the last have an axis of models before, or none has; the sequences may lack it.
extern "C" XLA_FFI_Error *train(XLA_FFI_CallFrame *frame) {
  if (only_asks_for_metadata(frame)) return nullptr;
  struct Arrays {
    F *before[N_ARRAYS], *after[N_ARRAYS];
  } arrays;
  for (int a = 0; a < N_ARRAYS; a++) {
    arrays.before[a] = (F *)argument(frame, a)->data;
    arrays.after[a] = result(frame, a);
  }
  F *const losses = result(frame, N_ARRAYS);
  const auto *shared = (const F *)argument(frame, N_ARRAYS)->data;
  const auto *sequences = argument(frame, N_ARRAYS + 1), *batches = argument(frame, N_ARRAYS + 2);
  const auto *tokens = (const int32_t *)sequences->data, *rows = (const int32_t *)batches->data;
  const int64_t to_next_model = sequences->rank == 2 ? 0 : sequences->dims[1] * N_TOKENS;
  const int64_t capacity = batches->dims[batches->rank - 2], batch = batches->dims[batches->rank - 1];
  const int64_t n_steps = *(const int32_t *)argument(frame, N_ARRAYS + 3)->data;
  return in_blocks(frame, n_models(batches, 2), [=](Block block) {
    alignas(64) static thread_local P numbers[(1 + N_KEPT) * N_PARAMETERS], found[N_OUTPUTS];
    load(arrays.before, N_ARRAYS, block, numbers);
    for (int model = 0; model < block.n; model++)
      std::fill_n(losses + (block.first + model) * capacity, capacity, F(0));
    for (int64_t step = 0; step < n_steps; step++) {
      const auto row = [=](int lane, int64_t i) {
        const int64_t model = block.model(lane);
        return tokens + model * to_next_model + rows[(model * capacity + step) * batch + i] * int64_t(N_TOKENS);
      };
      means(numbers, row, batch, found);
      for (int model = 0; model < block.n; model++)
        losses[(block.first + model) * capacity + step] = of_model(found, model);
      alignas(64) V of_step[N_SHARED + 1];
      for (int k = 0; k < N_SHARED; k++)
        for (int lane = 0; lane < LANES; lane++)
          of_step[k][lane] = shared[(block.model(lane) * capacity + step) * N_SHARED + k];
      update(numbers, found + 1, of_step);
    }
    store(numbers, arrays.after, N_ARRAYS, block);
  });
}
