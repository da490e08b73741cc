// From parameters in N_LEAVES arrays and tokens [n N_TOKENS], all with the same axes of models before, or none, to
// the means of the outputs: the first, the loss, and the others in arrays like the parameters'.

extern "C" XLA_FFI_Error *value_and_grad(XLA_FFI_CallFrame *frame) {
  if (only_asks_for_metadata(frame)) return nullptr;
  struct Arrays {
    F *parameters[N_LEAVES + 1], *gradient[N_LEAVES + 1];
  } arrays;
  for (int leaf = 0; leaf < N_LEAVES; leaf++) {
    arrays.parameters[leaf] = (F *)argument(frame, leaf)->data;
    arrays.gradient[leaf] = result(frame, 1 + leaf);
  }
  F *const values = result(frame, 0);
  const auto *examples = argument(frame, N_LEAVES);
  const auto *tokens = (const int32_t *)examples->data;
  const int64_t n = examples->dims[examples->rank - 2];
  return in_blocks(frame, n_models(examples, 2), [=](Block block) {
    alignas(64) static thread_local P numbers[N_PARAMETERS + 1], found[N_OUTPUTS];
    load(arrays.parameters, N_LEAVES, block, numbers);
    means(numbers, [=](int lane, int64_t i) { return tokens + (block.model(lane) * n + i) * N_TOKENS; }, n, found);
    for (int model = 0; model < block.n; model++) values[block.first + model] = of_model(found, model);
    store(found + 1, arrays.gradient, N_LEAVES, block);
  });
}
