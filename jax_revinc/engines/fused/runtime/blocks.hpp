// The interface to XLA: the arguments of a handler, and threads that share its blocks of models.

#include <xla/ffi/api/c_api.h>

#include <atomic>
#include <memory>
#include <thread>

static bool only_asks_for_metadata(const XLA_FFI_CallFrame *frame) {
  const auto *extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata &metadata = *((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata.api_version.major_version = XLA_FFI_API_MAJOR;
  metadata.api_version.minor_version = XLA_FFI_API_MINOR;
  metadata.traits = 0;
  metadata.state_type_id = XLA_FFI_UNKNOWN_TYPE_ID;
  return true;
}

INLINE const XLA_FFI_Buffer *argument(const XLA_FFI_CallFrame *frame, int i) {
  return (const XLA_FFI_Buffer *)frame->args.args[i];
}

INLINE F *result(const XLA_FFI_CallFrame *frame, int i) {
  return (F *)((const XLA_FFI_Buffer *)frame->rets.rets[i])->data;
}

// The number of models: the product of an array's axes without the last `n_own`.
static int64_t n_models(const XLA_FFI_Buffer *array, int n_own) {
  int64_t n = 1;
  for (int64_t axis = 0; axis < array->rank - n_own; axis++) n *= array->dims[axis];
  return n;
}

// Runs `work(block)` for all models, and returns when all blocks are finished. XLA's idle threads
// help. A thread that starts late finds no block left; it may outlive the call, so it shares
// ownership of `Shared`.
template <class Work>
static XLA_FFI_Error *in_blocks(const XLA_FFI_CallFrame *frame, int64_t n_models, Work work) {
  struct Shared {
    const Work work;
    const int64_t n_models, n_blocks;
    std::atomic<int64_t> n_taken{0}, n_finished{0};
    void take_blocks() {
      for (int64_t block; (block = n_taken++) < n_blocks; n_finished++)
        work(Block{block * MODELS, (int)std::min<int64_t>(MODELS, n_models - block * MODELS)});
    }
  };
  const int64_t n_blocks = (n_models + MODELS - 1) / MODELS;
  const std::shared_ptr<Shared> shared(new Shared{work, n_models, n_blocks});
  const auto refused = [&](XLA_FFI_Error *error) {
    XLA_FFI_Error_Destroy_Args destroyed{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
    if (error) frame->api->XLA_FFI_Error_Destroy(&destroyed);
    return error != nullptr;
  };
  int64_t n_threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args pool{
      XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr, frame->ctx, &n_threads};
  if (refused(frame->api->XLA_FFI_ThreadPool_NumThreads(&pool))) n_threads = 1;
  XLA_FFI_Task *const help = [](void *data) {
    const std::unique_ptr<std::shared_ptr<Shared>> owner((std::shared_ptr<Shared> *)data);
    (*owner)->take_blocks();
  };
  for (int64_t helper = 1; helper < std::min(n_threads, n_blocks); helper++) {
    auto *const owner = new std::shared_ptr<Shared>(shared);
    XLA_FFI_ThreadPool_Schedule_Args task{
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr, frame->ctx, help, owner};
    if (refused(frame->api->XLA_FFI_ThreadPool_Schedule(&task))) delete owner;
  }
  shared->take_blocks();
  while (shared->n_finished < n_blocks) std::this_thread::yield();
  return nullptr;
}
