// What a call asks of the card, in order: done at once on a stream, or gathered and done as one CUDA graph where the call before asked for the like.
// A graph never decides what is done: every call says all of it, and what has changed is written into the graph before it is launched.
#pragma once
#include <functional>
#include <memory>
#include <tuple>
#include <vector>

#include "check.h"

namespace splat::gpu {

// What makes two pieces of work nodes of one graph: a kernel's address, whatever its arguments and size; all there is to say of anything else.
struct Key {
  const void *what;
  uint64_t values[8];
  bool operator==(const Key &other) const;
};

class Work {
 public:
  explicit Work(const Key &key_) : key(key_) {}
  virtual ~Work() = default;
  virtual cudaError_t run(cudaStream_t stream) = 0;
  virtual cudaError_t add(cudaGraph_t graph, const cudaGraphNode_t *after, cudaGraphNode_t *node) = 0;  // `after`: one node, or NULL
  virtual bool is_same(const Work &) const { return true; }  // asked of one with an equal key
  virtual cudaError_t update(cudaGraphExec_t, cudaGraphNode_t) { return cudaSuccess; }
  const Key key;
};

template <class... P> class KernelWork : public Work {
 public:
  using Values = std::tuple<std::decay_t<P>...>;
  KernelWork(void (*kernel)(P...), const dim3 &grid, unsigned block, Values values)
      : Work({reinterpret_cast<const void *>(kernel), {}}), kernel_(kernel), grid_(grid), block_(block), values_(values) {
    point(std::index_sequence_for<P...>());
  }
  cudaError_t run(cudaStream_t stream) override { return cudaLaunchKernel(node_function(kernel_), grid_, dim3(block_), pointers_, 0, stream); }
  cudaError_t add(cudaGraph_t graph, const cudaGraphNode_t *after, cudaGraphNode_t *node) override {
    const cudaKernelNodeParams params = parameters();
    return cudaGraphAddKernelNode(node, graph, after, after ? 1 : 0, &params);
  }
  bool is_same(const Work &work) const override {
    const auto &other = static_cast<const KernelWork &>(work);
    return grid_.x == other.grid_.x && grid_.y == other.grid_.y && grid_.z == other.grid_.z && block_ == other.block_ &&
           !memcmp(&values_, &other.values_, sizeof values_);
  }
  cudaError_t update(cudaGraphExec_t graph, cudaGraphNode_t node) override {
    const cudaKernelNodeParams params = parameters();
    return cudaGraphExecKernelNodeSetParams(graph, node, &params);
  }

 private:
  template <size_t... I> void point(std::index_sequence<I...>) { ((pointers_[I] = &std::get<I>(values_)), ...); }
  cudaKernelNodeParams parameters() {
    cudaKernelNodeParams params{};
    params.func = node_function(kernel_);
    params.gridDim = grid_, params.blockDim = dim3(block_);
    params.kernelParams = pointers_;
    return params;
  }

  void (*kernel_)(P...);
  dim3 grid_;
  unsigned block_;
  Values values_;
  void *pointers_[sizeof...(P)];
};

using Works = std::vector<std::shared_ptr<Work>>;

// A graph that is a chain of works.
class Graph {
 public:
  ~Graph() { clear(); }
  bool is_like(const Works &works) const;
  bool build(const Works &works);                        // false where the runtime refuses, as below
  bool replay(const Works &works, cudaStream_t stream);  // of works like those it was built with
  void clear();

 private:
  Works works_;
  std::vector<cudaGraphNode_t> nodes_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

class Queue {
 public:
  Queue();
  cudaStream_t stream = nullptr;

  template <class... P, class... A> void launch(void (*kernel)(P...), const dim3 &grid, unsigned block, const A &...values) {
    put(std::make_shared<KernelWork<P...>>(kernel, grid, block, std::tuple<std::decay_t<P>...>(values...)));
  }
  void fill(void *to, int byte, size_t bytes);
  void copy_to_host(void *to, const void *from, size_t bytes);
  // What a library queues on the stream it is given; `key` tells it apart from all else.
  void call(const Key &key, std::function<void(cudaStream_t)> library);

  void gather();  // from now on nothing is done before `submit`, if graphs are wanted
  void submit();
  void forget();  // what was gathered and never submitted
  int64_t n_replays() const { return n_replays_; }

 private:
  void put(std::shared_ptr<Work> work);

  bool has_graphs_;  // off by SPLATWORKS_GRAPHS=0, and after the runtime refused one
  bool is_gathering_ = false;
  int64_t n_replays_ = 0;
  Works gathered_;
  std::vector<Key> last_;  // asked for by the call before
  Graph graph_;
};

// Gathers while it lives, whatever ends its scope.
class Gathering {
 public:
  Gathering(Queue &queue, bool wanted) : queue_(queue) {
    if (wanted) queue_.gather();
  }
  ~Gathering() { queue_.forget(); }
  Gathering(const Gathering &) = delete;
  Gathering &operator=(const Gathering &) = delete;

 private:
  Queue &queue_;
};

}  // namespace splat::gpu
