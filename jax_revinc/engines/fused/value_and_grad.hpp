// What XLA calls: parameters in N_LEAVES arrays of LEAF_SIZES and tokens [n N_TOKENS], all with the same axes of
// models before, or none; to the loss, and the gradient in arrays like the parameters'.

#include <xla/ffi/api/c_api.h>

#include <atomic>
#include <memory>
#include <thread>

struct Call {
  F *leaves[N_LEAVES + 1], *results[N_LEAVES + 1];
  const int32_t *tokens;
  int64_t n, n_models, n_blocks;  // examples of a model, models, and blocks of LANES models
  std::atomic<int64_t> n_taken{0}, n_finished{0};
};

static void of_one_model(const Call &call) {
  static thread_local F p[N_PARAMETERS + 1], means[N_OUTPUTS];
  F *end = p;
  for (int leaf = 0; leaf < N_LEAVES; leaf++) end = std::copy_n(call.leaves[leaf], LEAF_SIZES[leaf], end);
  means_of_one(p, call.tokens, call.n, means);
  *call.results[0] = means[0];
  const F *next = means + 1;
  for (int leaf = 0; leaf < N_LEAVES; next += LEAF_SIZES[leaf++])
    std::copy_n(next, LEAF_SIZES[leaf], call.results[1 + leaf]);
}

static void of_block(const Call &call, int64_t block) {
  alignas(64) static thread_local V p[N_PARAMETERS + 1], means[N_OUTPUTS];
  // The last model fills the lanes that are left.
  const auto model = [&](int lane) { return std::min(block * LANES + lane, call.n_models - 1); };
  V *next = p;
  for (int leaf = 0; leaf < N_LEAVES; leaf++)
    for (int64_t i = 0; i < LEAF_SIZES[leaf]; i++, next++)
      for (int lane = 0; lane < LANES; lane++)
        (*next)[lane] = call.leaves[leaf][model(lane) * LEAF_SIZES[leaf] + i];
  const auto row = [&](int64_t i, int lane) { return call.tokens + (model(lane) * call.n + i) * N_TOKENS; };
  means_of_many(p, row, call.n, means);
  for (int lane = 0; lane < std::min(int64_t(LANES), call.n_models - block * LANES); lane++) {
    call.results[0][model(lane)] = means[0][lane];
    const V *mean = means + 1;
    for (int leaf = 0; leaf < N_LEAVES; leaf++)
      for (int64_t i = 0; i < LEAF_SIZES[leaf]; i++)
        call.results[1 + leaf][model(lane) * LEAF_SIZES[leaf] + i] = (*mean++)[lane];
  }
}

static void take_blocks(Call &call) {
  for (int64_t block; (block = call.n_taken++) < call.n_blocks; call.n_finished++) of_block(call, block);
}

// Returns once all blocks are done. XLA's other threads help if they are idle; one that comes late finds nothing
// left, so it may outlive the call, and keeps what it looks at.
static void of_all_blocks(const std::shared_ptr<Call> &call, const XLA_FFI_CallFrame *frame) {
  using Shared = std::shared_ptr<Call>;
  const auto refused = [&](XLA_FFI_Error *error) {
    XLA_FFI_Error_Destroy_Args destroyed{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
    if (error) frame->api->XLA_FFI_Error_Destroy(&destroyed);
    return error != nullptr;
  };
  int64_t n_threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args pool{XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr, frame->ctx, &n_threads};
  if (refused(frame->api->XLA_FFI_ThreadPool_NumThreads(&pool))) n_threads = 1;
  XLA_FFI_Task *const help = [](void *data) {
    const std::unique_ptr<Shared> shared((Shared *)data);
    take_blocks(**shared);
  };
  for (int64_t helper = 1; helper < std::min(n_threads, call->n_blocks); helper++) {
    auto *const shared = new Shared(call);
    XLA_FFI_ThreadPool_Schedule_Args task{
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr, frame->ctx, help, shared};
    if (refused(frame->api->XLA_FFI_ThreadPool_Schedule(&task))) delete shared;
  }
  take_blocks(*call);
  while (call->n_finished < call->n_blocks) std::this_thread::yield();
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
  const auto call = std::make_shared<Call>();
  for (int i = 0; i < N_LEAVES; i++) call->leaves[i] = (F *)((XLA_FFI_Buffer *)frame->args.args[i])->data;
  for (int i = 0; i <= N_LEAVES; i++) call->results[i] = (F *)((XLA_FFI_Buffer *)frame->rets.rets[i])->data;
  const auto *examples = (XLA_FFI_Buffer *)frame->args.args[N_LEAVES];
  call->tokens = (const int32_t *)examples->data;
  call->n = examples->dims[examples->rank - 2];
  call->n_models = 1;
  for (int64_t axis = 0; axis < examples->rank - 2; axis++) call->n_models *= examples->dims[axis];
  call->n_blocks = (call->n_models + LANES - 1) / LANES;
  if (examples->rank == 2)
    of_one_model(*call);
  else
    of_all_blocks(call, frame);
  return nullptr;
}
