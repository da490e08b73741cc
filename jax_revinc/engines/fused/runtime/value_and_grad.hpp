// The handler `value_and_grad`: from parameters in N_LEAVES arrays and tokens [n N_TOKENS] to the
// means of the outputs. The first is the loss, the others are the gradient in arrays like the
// parameters'. All arrays have the same axes of models first, or none.

extern "C" XLA_FFI_Error *value_and_grad(XLA_FFI_CallFrame *frame) {
  if (only_asks_for_metadata(frame)) return nullptr;
  struct Arrays {
    F *params[N_LEAVES + 1], *gradient[N_LEAVES + 1];
  } arrays;
  for (int leaf = 0; leaf < N_LEAVES; leaf++) {
    arrays.params[leaf] = (F *)argument(frame, leaf)->data;
    arrays.gradient[leaf] = result(frame, 1 + leaf);
  }
  F *const losses = result(frame, 0);
  const auto *examples = argument(frame, N_LEAVES);
  const auto *tokens = (const int32_t *)examples->data;
  const int64_t n = examples->dims[examples->rank - 2];
  return in_blocks(frame, n_models(examples, 2), [=](Block block) {
    alignas(64) static thread_local P params[N_PARAMETERS + 1], results[N_OUTPUTS];
    load(arrays.params, N_LEAVES, block, params);
    const auto row = [=](int lane, int64_t i) {
      return tokens + (block.model(lane) * n + i) * N_TOKENS;
    };
    means(params, row, n, results);
    for (int model = 0; model < block.n; model++)
      losses[block.first + model] = of_model(results, model);
    store(results + 1, arrays.gradient, N_LEAVES, block);
  });
}
