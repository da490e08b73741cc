// From parameters in N_LEAVES arrays and sequences [n N_TOKENS] to the outputs of each: [n N_OUTPUTS]. The arrays have an
// axis of models before, or none; the sequences may lack it.

extern "C" XLA_FFI_Error *outputs(XLA_FFI_CallFrame *frame) {
  if (only_asks_for_metadata(frame)) return nullptr;
  struct Arrays {
    F *parameters[N_LEAVES + 1];
  } arrays;
  for (int leaf = 0; leaf < N_LEAVES; leaf++) arrays.parameters[leaf] = (F *)argument(frame, leaf)->data;
  const auto *sequences = argument(frame, N_LEAVES);
  const auto *tokens = (const int32_t *)sequences->data;
  const int64_t n = sequences->dims[sequences->rank - 2];
  const int64_t to_next_model = sequences->rank == 2 ? 0 : n * N_TOKENS;
  const auto *found = (const XLA_FFI_Buffer *)frame->rets.rets[0];
  F *const each_output = result(frame, 0);
  return in_blocks(frame, n_models(found, 2), [=](Block block) {
    alignas(64) static thread_local P numbers[N_PARAMETERS + 1];
    load(arrays.parameters, N_LEAVES, block, numbers);
    const auto row = [=](int lane, int64_t i) { return tokens + block.model(lane) * to_next_model + i * N_TOKENS; };
    each(numbers, row, n, [=](int model, int64_t i, int output, F value) {
      if (model < block.n) each_output[((block.first + model) * n + i) * N_OUTPUTS + output] = value;
    });
  });
}
