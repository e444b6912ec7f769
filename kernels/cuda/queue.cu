#include "queue.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>

namespace splat::gpu {

namespace {

const char FILL = 0, COPY = 0;  // their addresses stand where a kernel's would

uint64_t number_of(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer); }

class FillWork : public Work {
 public:
  FillWork(void *to, int byte, size_t bytes)
      : Work({&FILL, {number_of(to), static_cast<uint64_t>(byte), bytes}}), to_(to), byte_(byte), bytes_(bytes) {}
  cudaError_t run(cudaStream_t stream) override { return cudaMemsetAsync(to_, byte_, bytes_, stream); }
  cudaError_t add(cudaGraph_t graph, const cudaGraphNode_t *after, cudaGraphNode_t *node) override {
    cudaMemsetParams params{};
    params.dst = to_, params.value = static_cast<unsigned>(byte_), params.elementSize = 1, params.width = bytes_, params.height = 1;
    return cudaGraphAddMemsetNode(node, graph, after, after ? 1 : 0, &params);
  }

 private:
  void *to_;
  int byte_;
  size_t bytes_;
};

class CopyWork : public Work {
 public:
  CopyWork(void *to, const void *from, size_t bytes) : Work({&COPY, {number_of(to), number_of(from), bytes}}), to_(to), from_(from), bytes_(bytes) {}
  cudaError_t run(cudaStream_t stream) override { return cudaMemcpyAsync(to_, from_, bytes_, cudaMemcpyDeviceToHost, stream); }
  cudaError_t add(cudaGraph_t graph, const cudaGraphNode_t *after, cudaGraphNode_t *node) override {
    return cudaGraphAddMemcpyNode1D(node, graph, after, after ? 1 : 0, to_, from_, bytes_, cudaMemcpyDeviceToHost);
  }

 private:
  void *to_;
  const void *from_;
  size_t bytes_;
};

// A library's launches become a graph of their own within the graph: they are captured from a stream that nobody else knows.
class LibraryWork : public Work {
 public:
  LibraryWork(const Key &key_, std::function<void(cudaStream_t)> library) : Work(key_), library_(std::move(library)) {}
  cudaError_t run(cudaStream_t stream) override { return library_(stream), cudaSuccess; }
  cudaError_t add(cudaGraph_t graph, const cudaGraphNode_t *after, cudaGraphNode_t *node) override {
    cudaStream_t stream;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return error;
    cudaGraph_t part = nullptr;
    error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
      cudaError_t said = cudaSuccess;
      try {
        library_(stream);
      } catch (const Refusal &) {
        said = cudaErrorUnknown;  // the capture has to be ended whatever happened
      }
      error = cudaStreamEndCapture(stream, &part);
      if (error == cudaSuccess) error = said;
    }
    if (error == cudaSuccess) error = cudaGraphAddChildGraphNode(node, graph, after, after ? 1 : 0, part);
    if (part) cudaGraphDestroy(part);
    cudaStreamDestroy(stream);
    return error;
  }

 private:
  std::function<void(cudaStream_t)> library_;
};

}  // namespace

bool Key::operator==(const Key &other) const { return what == other.what && std::equal(values, values + 8, other.values); }

bool Graph::is_like(const Works &works) const {
  return exec_ && std::equal(works_.begin(), works_.end(), works.begin(), works.end(), [](const auto &a, const auto &b) { return a->key == b->key; });
}

bool Graph::build(const Works &works) {
  clear();
  if (cudaGraphCreate(&graph_, 0) != cudaSuccess) return false;
  for (const auto &work : works) {
    cudaGraphNode_t node;
    if (work->add(graph_, nodes_.empty() ? nullptr : &nodes_.back(), &node) != cudaSuccess) return false;
    nodes_.push_back(node);
  }
  works_ = works;
  return cudaGraphInstantiateWithFlags(&exec_, graph_, 0) == cudaSuccess;
}

bool Graph::replay(const Works &works, cudaStream_t stream) {
  for (size_t i = 0; i < works.size(); i++) {
    if (works[i]->is_same(*works_[i])) continue;
    if (works[i]->update(exec_, nodes_[i]) != cudaSuccess) return false;
    works_[i] = works[i];
  }
  return cudaGraphLaunch(exec_, stream) == cudaSuccess;
}

void Graph::clear() {
  if (exec_) cudaGraphExecDestroy(exec_);  // one that still runs is destroyed when it is done
  if (graph_) cudaGraphDestroy(graph_);
  exec_ = nullptr, graph_ = nullptr;
  works_.clear(), nodes_.clear();
}

Queue::Queue() {
  const char *wanted = getenv("SPLATWORKS_GRAPHS");
  has_graphs_ = !wanted || strcmp(wanted, "0");
}

void Queue::put(std::shared_ptr<Work> work) {
  if (is_gathering_)
    gathered_.push_back(std::move(work));
  else
    check(work->run(stream), "starting a kernel");
}

void Queue::fill(void *to, int byte, size_t bytes) { put(std::make_shared<FillWork>(to, byte, bytes)); }

void Queue::copy_to_host(void *to, const void *from, size_t bytes) { put(std::make_shared<CopyWork>(to, from, bytes)); }

void Queue::call(const Key &key, std::function<void(cudaStream_t)> library) { put(std::make_shared<LibraryWork>(key, std::move(library))); }

void Queue::gather() { is_gathering_ = has_graphs_; }

void Queue::forget() {
  gathered_.clear();
  is_gathering_ = false;
}

// A graph is worth its making where the same is asked for again and again: it is made when a call asks for the like of the one before.
void Queue::submit() {
  if (!is_gathering_) return;
  is_gathering_ = false;
  std::vector<Key> keys;
  for (const auto &work : gathered_) keys.push_back(work->key);
  const bool is_again = keys == last_, is_like = graph_.is_like(gathered_);
  last_ = std::move(keys);
  if (is_again || is_like) {
    if ((is_like || graph_.build(gathered_)) && graph_.replay(gathered_, stream)) {
      n_replays_++;
      return;
    }
    cudaGetLastError();
    graph_.clear();
    has_graphs_ = false;  // what the runtime refuses once it refuses again: launches one by one from now on
  }
  for (const auto &work : gathered_) check(work->run(stream), "starting a kernel");
}

}  // namespace splat::gpu
