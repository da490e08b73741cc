// The handler `outputs`: from parameters in N_LEAVES arrays and sequences [n N_TOKENS] to outputs
// [n N_OUTPUTS]. All arrays have an axis of models first, or none has; the sequences may lack it.

extern "C" XLA_FFI_Error *outputs(XLA_FFI_CallFrame *frame) {
  if (only_asks_for_metadata(frame)) return nullptr;
  struct Arrays {
    F *params[N_LEAVES + 1];
  } arrays;
  for (int leaf = 0; leaf < N_LEAVES; leaf++)
    arrays.params[leaf] = (F *)argument(frame, leaf)->data;
  const auto *sequences = argument(frame, N_LEAVES);
  const auto *tokens = (const int32_t *)sequences->data;
  const int64_t n = sequences->dims[sequences->rank - 2];
  const int64_t to_next_model = sequences->rank == 2 ? 0 : n * N_TOKENS;
  const auto *outputs = (const XLA_FFI_Buffer *)frame->rets.rets[0];
  F *const each_output = result(frame, 0);
  return in_blocks(frame, n_models(outputs, 2), [=](Block block) {
    alignas(64) static thread_local P params[N_PARAMETERS + 1];
    load(arrays.params, N_LEAVES, block, params);
    const auto row = [=](int lane, int64_t i) {
      return tokens + block.model(lane) * to_next_model + i * N_TOKENS;
    };
    each(params, row, n, [=](int model, int64_t i, int output, F value) {
      if (model >= block.n) return;
      each_output[((block.first + model) * n + i) * N_OUTPUTS + output] = value;
    });
  });
}
