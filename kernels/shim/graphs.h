// Launches, streams that are captured, and graphs, for the shim. A graph's nodes run in a random order that their edges allow, so a missing edge shows.
// SPLAT_SHIM_GRAPHS=0 refuses to instantiate, as an old driver might. Included by cuda_shim.h.
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "late.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorUnknown = 999
};
using cudaStream_t = struct ShimStream *;

namespace splat::shim {

using Kernel = std::function<Job(const dim3 &, const dim3 &, void **)>;  // to a launch of its own, with copies of the arguments

struct Node {
  Job job;
  std::vector<Node *> after;
};

}  // namespace splat::shim

using cudaGraphNode_t = splat::shim::Node *;
using cudaGraph_t = struct ShimGraph *;
using cudaGraphExec_t = struct ShimGraphExec *;

struct ShimStream {
  cudaGraph_t captured = nullptr;
};

struct ShimGraph {
  std::vector<cudaGraphNode_t> nodes;
  ShimGraph() = default;
  ShimGraph(const ShimGraph &) = delete;
  ~ShimGraph() {
    for (const cudaGraphNode_t node : nodes) delete node;
  }
};

struct ShimGraphExec {
  std::vector<splat::shim::Node> nodes;          // with the places of those before instead of their addresses
  std::map<cudaGraphNode_t, size_t> places;
};

struct cudaKernelNodeParams {
  splat::shim::Kernel func;
  dim3 gridDim, blockDim;
  unsigned sharedMemBytes;
  void **kernelParams, **extra;
};
struct cudaMemsetParams {
  void *dst;
  unsigned value, elementSize;
  size_t pitch, width, height;
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
constexpr unsigned cudaStreamNonBlocking = 1;

namespace splat::shim {

inline bool &is_capturing() {
  static bool yes = false;
  return yes;
}

inline void add_node(cudaGraph_t graph, cudaGraphNode_t *node, const cudaGraphNode_t *after, size_t count, Job job) {
  graph->nodes.push_back(new Node{std::move(job), {after, after + count}});
  *node = graph->nodes.back();
}

// Does a job now (or late), or when the graph that the stream is captured into runs.
inline void on_stream(cudaStream_t stream, Job job) {
  if (!stream || !stream->captured) return Late::all().put(std::move(job));
  const cudaGraphNode_t last = stream->captured->nodes.empty() ? nullptr : stream->captured->nodes.back();
  cudaGraphNode_t node;
  add_node(stream->captured, &node, &last, last ? 1 : 0, std::move(job));
}

inline void run(const std::vector<Node> &nodes, const std::map<cudaGraphNode_t, size_t> &places) {
  static std::mt19937_64 random{std::random_device{}()};
  std::vector<bool> done(nodes.size());
  for (size_t left = nodes.size(); left > 0; left--) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++)
      if (!done[i] && std::all_of(nodes[i].after.begin(), nodes[i].after.end(), [&](Node *each) { return bool(done[places.at(each)]); })) ready.push_back(i);
    const size_t chosen = ready.at(random() % ready.size());
    nodes[chosen].job();
    done[chosen] = true;
  }
}

inline void fill(void *to, int value, size_t bytes) {
  memset(to, value, bytes);
  watch::library_wrote(to, bytes);
}

// In its turn: what was asked for before may still read it.
inline void forget(void *memory, size_t bytes) {
  Late::all().put([=] { watch::forget(memory, bytes); });
}

inline void copy(void *to, const void *from, size_t bytes) {
  watch::library_read(from, bytes);
  memmove(to, from, bytes);
  watch::library_wrote(to, bytes);
}

template <class... P, size_t... I> Kernel kernel_of(void (*kernel)(P...), std::index_sequence<I...>) {
  return [kernel](const dim3 &grid, const dim3 &block, void **values) -> Job {
    const std::tuple<std::decay_t<P>...> copies(*static_cast<std::decay_t<P> *>(values[I])...);
    return [=] { launch({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, [&] { std::apply(kernel, copies); }, reinterpret_cast<const void *>(kernel)); };
  };
}

}  // namespace splat::shim

// What the runtime's launches and graphs know a kernel by.
template <class... P> splat::shim::Kernel node_function(void (*kernel)(P...)) {
  return splat::shim::kernel_of(kernel, std::index_sequence_for<P...>());
}

inline cudaError_t cudaLaunchKernel(const splat::shim::Kernel &kernel, const dim3 &grid, const dim3 &block, void **values, size_t, cudaStream_t stream) {
  return splat::shim::on_stream(stream, kernel(grid, block, values)), cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return *stream = new ShimStream, cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream) return cudaErrorStreamCaptureUnsupported;  // the default stream cannot be captured
  return stream->captured = new ShimGraph, splat::shim::is_capturing() = true, cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  return *graph = stream->captured, stream->captured = nullptr, splat::shim::is_capturing() = false, cudaSuccess;
}
inline cudaError_t cudaGraphCreate(cudaGraph_t *graph, unsigned) { return *graph = new ShimGraph, cudaSuccess; }
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *after, size_t count,
                                          const cudaKernelNodeParams *p) {
  return splat::shim::add_node(graph, node, after, count, p->func(p->gridDim, p->blockDim, p->kernelParams)), cudaSuccess;
}
inline cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *after, size_t count, const cudaMemsetParams *p) {
  if (p->elementSize != 1 || p->height != 1 || p->width == 0) return cudaErrorNotSupported;
  return splat::shim::add_node(graph, node, after, count, [q = *p] { splat::shim::fill(q.dst, static_cast<int>(q.value), q.width); }), cudaSuccess;
}
inline cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *after, size_t count, cudaGraph_t part) {
  std::map<cudaGraphNode_t, size_t> places;
  std::vector<splat::shim::Node> nodes;
  for (const cudaGraphNode_t each : part->nodes) places[each] = nodes.size(), nodes.push_back(*each);
  return splat::shim::add_node(graph, node, after, count, [=] { splat::shim::run(nodes, places); }), cudaSuccess;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  const char *wanted = getenv("SPLAT_SHIM_GRAPHS");
  if (wanted && !strcmp(wanted, "0")) return cudaErrorNotSupported;
  *exec = new ShimGraphExec;
  for (const cudaGraphNode_t each : graph->nodes) (*exec)->places[each] = (*exec)->nodes.size(), (*exec)->nodes.push_back(*each);
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
inline cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, const cudaKernelNodeParams *p) {
  return exec->nodes.at(exec->places.at(node)).job = p->func(p->gridDim, p->blockDim, p->kernelParams), cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {  // as it is now, whatever is written into it later
  return splat::shim::on_stream(stream, [copy = *exec] { splat::shim::run(copy.nodes, copy.places); }), cudaSuccess;
}
