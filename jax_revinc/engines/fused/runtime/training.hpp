// Updates in a row. Defined before: N_MOMENTS (numbers that the optimizer keeps of every parameter)
// and N_SCALARS (numbers of an update that all parameters of a model share).

constexpr int N_ARRAYS = N_LEAVES * (1 + N_MOMENTS);

// Applies `rule` to `n` parameters, at most ABREAST, from the i-th on. Its inputs are a parameter,
// its moments, its gradient and the scalars; its outputs are the new parameter and moments. `state`
// is all parameters, then all moments.
template <class Rule>
INLINE void update_some(Rule rule, int i, int n, P *state, const P *gradient, const V *scalars) {
  V before[2 + N_MOMENTS + N_SCALARS], after[1 + N_MOMENTS];
  for (int k = 0; k <= N_MOMENTS; k++) before[k] = read(state + k * N_PARAMETERS + i, n);
  before[1 + N_MOMENTS] = read(gradient + i, n);
  for (int k = 0; k < N_SCALARS; k++) before[2 + N_MOMENTS + k] = scalars[k];
  rule(before, after);
  for (int k = 0; k <= N_MOMENTS; k++) write(after[k], state + k * N_PARAMETERS + i, n);
}

// Applies `rule` to the parameters from `begin` to `end`, exclusive.
template <class Rule>
INLINE void update_range(
    Rule rule, int begin, int end, P *state, const P *gradient, const V *scalars) {
  int i = begin;
  for (; i + ABREAST <= end; i += ABREAST) update_some(rule, i, ABREAST, state, gradient, scalars);
  if (i < end) update_some(rule, i, end - i, state, gradient, scalars);
}

// Applies the rules to all parameters; generated.
static void update(P *state, const P *gradient, const V *scalars);

// The handler `train`. Its arguments: parameters and moments in N_ARRAYS arrays, scalars [capacity
// N_SCALARS], sequences [n_sequences N_TOKENS], rows [capacity batch] (the sequences of each
// batch), and the number of updates, at most capacity. Its results: the new parameters and moments,
// and each batch's loss before its update. All arrays but the last argument have an axis of models
// first, or none has; the sequences may lack it.
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
  const auto *scalars = (const F *)argument(frame, N_ARRAYS)->data;
  const auto *sequences = argument(frame, N_ARRAYS + 1), *batches = argument(frame, N_ARRAYS + 2);
  const auto *tokens = (const int32_t *)sequences->data, *rows = (const int32_t *)batches->data;
  const int64_t to_next_model = sequences->rank == 2 ? 0 : sequences->dims[1] * N_TOKENS;
  const int64_t capacity = batches->dims[batches->rank - 2];
  const int64_t batch = batches->dims[batches->rank - 1];
  const int64_t n_steps = *(const int32_t *)argument(frame, N_ARRAYS + 3)->data;
  return in_blocks(frame, n_models(batches, 2), [=](Block block) {
    alignas(64) static thread_local P state[(1 + N_MOMENTS) * N_PARAMETERS], results[N_OUTPUTS];
    load(arrays.before, N_ARRAYS, block, state);
    for (int model = 0; model < block.n; model++)
      std::fill_n(losses + (block.first + model) * capacity, capacity, F(0));
    for (int64_t step = 0; step < n_steps; step++) {
      const auto row = [=](int lane, int64_t i) {
        const int64_t model = block.model(lane);
        const int64_t sequence = rows[(model * capacity + step) * batch + i];
        return tokens + model * to_next_model + sequence * N_TOKENS;
      };
      means(state, row, batch, results);
      for (int model = 0; model < block.n; model++)
        losses[(block.first + model) * capacity + step] = of_model(results, model);
      alignas(64) V of_step[N_SCALARS + 1];
      for (int k = 0; k < N_SCALARS; k++)
        for (int lane = 0; lane < LANES; lane++)
          of_step[k][lane] = scalars[(block.model(lane) * capacity + step) * N_SCALARS + k];
      update(state, results + 1, of_step);
    }
    store(state, arrays.after, N_ARRAYS, block);
  });
}
