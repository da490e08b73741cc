// What XLA calls: parameters in N_LEAVES arrays of LEAF_SIZES and tokens [n N_TOKENS], all with the same axes of
// models before, or none; to the loss, and the gradient in arrays like the parameters'.

#include <xla/ffi/api/c_api.h>

static void of_one_model(F *const *leaves, const int32_t *tokens, int64_t n, F *const *results) {
  static thread_local F p[N_PARAMETERS + 1], means[N_OUTPUTS];
  F *end = p;
  for (int leaf = 0; leaf < N_LEAVES; leaf++) end = std::copy_n(leaves[leaf], LEAF_SIZES[leaf], end);
  means_of_one(p, tokens, n, means);
  *results[0] = means[0];
  const F *next = means + 1;
  for (int leaf = 0; leaf < N_LEAVES; next += LEAF_SIZES[leaf++])
    std::copy_n(next, LEAF_SIZES[leaf], results[1 + leaf]);
}

static void of_models(F *const *leaves, const int32_t *tokens, int64_t n, F *const *results, int64_t n_models) {
  alignas(64) static thread_local V p[N_PARAMETERS + 1], means[N_OUTPUTS];
  for (int64_t first = 0; first < n_models; first += LANES) {
    // The last model fills the lanes that are left.
    const auto model = [=](int lane) { return std::min(first + lane, n_models - 1); };
    V *next = p;
    for (int leaf = 0; leaf < N_LEAVES; leaf++)
      for (int64_t i = 0; i < LEAF_SIZES[leaf]; i++, next++)
        for (int lane = 0; lane < LANES; lane++)
          (*next)[lane] = leaves[leaf][model(lane) * LEAF_SIZES[leaf] + i];
    means_of_many(p, [=](int64_t i, int lane) { return tokens + (model(lane) * n + i) * N_TOKENS; }, n, means);
    for (int lane = 0; lane < std::min<int64_t>(LANES, n_models - first); lane++) {
      results[0][first + lane] = means[0][lane];
      const V *mean = means + 1;
      for (int leaf = 0; leaf < N_LEAVES; leaf++)
        for (int64_t i = 0; i < LEAF_SIZES[leaf]; i++)
          results[1 + leaf][(first + lane) * LEAF_SIZES[leaf] + i] = (*mean++)[lane];
    }
  }
}

extern "C" XLA_FFI_Error *value_and_grad(XLA_FFI_CallFrame *frame) {
  const auto *extension = frame->extension_start;
  if (extension && extension->type == XLA_FFI_Extension_Metadata) {  // XLA asks what this was compiled for
    XLA_FFI_Metadata &metadata = *((XLA_FFI_Metadata_Extension *)extension)->metadata;
    metadata.api_version.major_version = XLA_FFI_API_MAJOR;
    metadata.api_version.minor_version = XLA_FFI_API_MINOR;
    metadata.traits = 0;
    metadata.state_type_id = XLA_FFI_UNKNOWN_TYPE_ID;
    return nullptr;
  }
  F *leaves[N_LEAVES + 1], *results[N_LEAVES + 1];
  for (int leaf = 0; leaf < N_LEAVES; leaf++) leaves[leaf] = (F *)((XLA_FFI_Buffer *)frame->args.args[leaf])->data;
  for (int i = 0; i <= N_LEAVES; i++) results[i] = (F *)((XLA_FFI_Buffer *)frame->rets.rets[i])->data;
  const auto *examples = (XLA_FFI_Buffer *)frame->args.args[N_LEAVES];
  const auto *tokens = (const int32_t *)examples->data;
  const int64_t n = examples->dims[examples->rank - 2];
  int64_t n_models = 1;
  for (int64_t axis = 0; axis < examples->rank - 2; axis++) n_models *= examples->dims[axis];
  if (examples->rank == 2)
    of_one_model(leaves, tokens, n, results);
  else
    of_models(leaves, tokens, n, results, n_models);
  return nullptr;
}
