// The stand-ins themselves, as a program meets them: functions by cuGetProcAddress, TensorRT's by their slots.
//   check CASE ONNX    ONNX: two inputs a [n, 3], b [1, 3] float32, sum = a + b, with n = 1 in profile 0
//   and n = 2 to 9 in profile 1
#include <cudaTypedefs.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "../expect.h"
#include "stand_in.h"

namespace {

template <class Function>
Function driver(const char* name, int version) {
  void* found = nullptr;
  EXPECT(cuGetProcAddress_v2(name, &found, version, 0, nullptr) == CUDA_SUCCESS && found);
  return reinterpret_cast<Function>(found);
}
#define CU(name, version) driver<PFN_##name##_v##version>(#name, version)
#define FINE(call) EXPECT((call) == CUDA_SUCCESS)

// A context, a stream, and 64 bytes.
struct Gpu {
  Gpu() {
    FINE(CU(cuInit, 2000)(0));
    FINE(CU(cuDevicePrimaryCtxRetain, 7000)(&context, 0));
    FINE(CU(cuCtxPushCurrent, 4000)(context));
    FINE(CU(cuStreamCreate, 2000)(&stream, CU_STREAM_NON_BLOCKING));
    FINE(CU(cuMemAlloc, 3020)(&place, 64));
  }
  ~Gpu() {
    FINE(CU(cuMemFree, 3020)(place));
    FINE(CU(cuStreamDestroy, 4000)(stream));
    FINE(CU(cuCtxPopCurrent, 4000)(nullptr));
    FINE(CU(cuDevicePrimaryCtxRelease, 11000)(0));
  }
  CUresult set(size_t at, unsigned char value) const { return CU(cuMemsetD8Async, 3020)(place + at, value, 1, stream); }
  int at(size_t where) const { return reinterpret_cast<const unsigned char*>(place)[where]; }
  CUresult wait() const { return CU(cuStreamSynchronize, 2000)(stream); }
  void begin(CUgraph graph, const CUgraphNode* after = nullptr, size_t count = 0) const {
    FINE(CU(cuStreamBeginCaptureToGraph, 12030)(stream, graph, after, nullptr, count,
                                                CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  }
  CUresult end(CUgraph* graph) const { return CU(cuStreamEndCapture, 10000)(stream, graph); }

  CUcontext context = nullptr;
  CUstream stream = nullptr;
  CUdeviceptr place = 0;
};

void nothing_is_left() {
  for (const char* kind :
       {"memory", "pinned", "stream", "event", "graph", "exec", "primary", "context", "engine", "runtime"})
    EXPECT(stand_in_alive(kind) == 0);
}

void test_waiting() {
  const Gpu gpu;
  FINE(gpu.set(0, 1));
  EXPECT(gpu.at(0) == 0xFF);
  FINE(gpu.wait());
  EXPECT(gpu.at(0) == 1 && gpu.at(1) == 0xFF);
  // another stream waits for a moment of the first, and not for what comes after it
  CUstream other = nullptr;
  CUevent event = nullptr;
  FINE(CU(cuStreamCreate, 2000)(&other, CU_STREAM_NON_BLOCKING));
  FINE(CU(cuEventCreate, 2000)(&event, CU_EVENT_DISABLE_TIMING));
  FINE(gpu.set(0, 2));
  FINE(CU(cuEventRecord, 2000)(event, gpu.stream));
  FINE(gpu.set(1, 3));
  FINE(CU(cuStreamWaitEvent, 3020)(other, event, 0));
  FINE(CU(cuStreamSynchronize, 2000)(other));
  EXPECT(gpu.at(0) == 2 && gpu.at(1) == 0xFF);
  FINE(CU(cuStreamDestroy, 4000)(other));
  EXPECT(CU(cuStreamSynchronize, 2000)(other) == CUDA_ERROR_INVALID_HANDLE);
  FINE(CU(cuEventDestroy, 4000)(event));
  FINE(CU(cuMemsetD8Async, 3020)(gpu.place + 5, 6, 1, nullptr));
  FINE(CU(cuStreamSynchronize, 2000)(nullptr));
  EXPECT(gpu.at(5) == 6);
  EXPECT(gpu.set(64, 0) == CUDA_ERROR_INVALID_VALUE);
  FINE(CU(cuCtxPopCurrent, 4000)(nullptr));
  EXPECT(gpu.set(0, 4) == CUDA_ERROR_INVALID_CONTEXT);
  FINE(CU(cuCtxPushCurrent, 4000)(gpu.context));
}

void test_versions() {
  stand_in_configure(1, 12020, 7, 5, 1 << 20);
  void* found = nullptr;
  EXPECT(cuGetProcAddress_v2("cuGraphAddNode", &found, 12030, 0, nullptr) == CUDA_ERROR_INVALID_VALUE && !found);
  EXPECT(cuGetProcAddress_v2("cuMemAlloc", &found, 2000, 0, nullptr) == CUDA_SUCCESS && !found);
  EXPECT(cuGetProcAddress_v2("cuNothing", &found, 2000, 0, nullptr) == CUDA_ERROR_NOT_FOUND && !found);
  const Gpu gpu;
  CUdeviceptr much = 0;
  EXPECT(CU(cuMemAlloc, 3020)(&much, 1 << 20) == CUDA_ERROR_OUT_OF_MEMORY);
}

void test_copies() {
  const Gpu gpu;
  unsigned char host[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  CUDA_MEMCPY2D rows{};
  rows.srcMemoryType = CU_MEMORYTYPE_HOST;
  rows.srcHost = host;
  rows.srcPitch = 4;
  rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  rows.dstDevice = gpu.place;
  rows.dstPitch = 8;
  rows.WidthInBytes = 3;
  rows.Height = 3;
  FINE(CU(cuMemcpy2DAsync, 3020)(&rows, gpu.stream));
  FINE(gpu.wait());
  EXPECT(gpu.at(0) == 1 && gpu.at(2) == 3 && gpu.at(3) == 0xFF && gpu.at(8) == 5 && gpu.at(18) == 11);
  rows.dstDevice = gpu.place + 64 - 18;  // one byte too far
  EXPECT(CU(cuMemcpy2DAsync, 3020)(&rows, gpu.stream) == CUDA_ERROR_INVALID_VALUE);
  rows.dstDevice = reinterpret_cast<CUdeviceptr>(host);
  EXPECT(CU(cuMemcpy2DAsync, 3020)(&rows, gpu.stream) == CUDA_ERROR_INVALID_VALUE);
  EXPECT(CU(cuMemcpyAsync, 4000)(gpu.place + 60, reinterpret_cast<CUdeviceptr>(host), 5, gpu.stream) ==
         CUDA_ERROR_INVALID_VALUE);
}

// Byte 0 ← 1, SWITCH between two bodies, byte 2 ← 1. The bodies set byte 1 to 10 and 11; `choose` is what a kernel in
// front of it sets the switch to, -1 for none.
CUgraph switching(const Gpu& gpu, CUgraphConditionalHandle* handle, unsigned at_launch, unsigned flags, int choose) {
  CUgraph graph = nullptr, same = nullptr;
  FINE(CU(cuGraphCreate, 10000)(&graph, 0));
  FINE(CU(cuGraphConditionalHandleCreate, 12030)(handle, graph, gpu.context, at_launch, flags));
  gpu.begin(graph);
  FINE(gpu.set(0, 1));
  if (choose >= 0)
    FINE(CUresult(stand_in_submit(gpu.stream, kStandInKernel,
                                  [=] { *reinterpret_cast<unsigned*>(*handle) = static_cast<unsigned>(choose); })));
  CUstreamCaptureStatus status{};
  const CUgraphNode* last = nullptr;
  size_t count = 0;
  FINE(CU(cuStreamGetCaptureInfo, 12030)(gpu.stream, &status, nullptr, &same, &last, nullptr, &count));
  EXPECT(status == CU_STREAM_CAPTURE_STATUS_ACTIVE && same == graph && count == 1);
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = *handle;
  params.conditional.type = CU_GRAPH_COND_TYPE_SWITCH;
  params.conditional.size = 2;
  params.conditional.ctx = gpu.context;
  CUgraphNode node = nullptr;
  FINE(CU(cuGraphAddNode, 12030)(&node, graph, last, nullptr, count, &params));
  const std::vector<CUgraph> bodies(params.conditional.phGraph_out, params.conditional.phGraph_out + 2);
  EXPECT(CU(cuGraphAddNode, 12030)(&node, graph, last, nullptr, count, &params) == CUDA_ERROR_INVALID_VALUE);
  FINE(gpu.end(&same));
  for (size_t k = 0; k < 2; ++k) {
    gpu.begin(bodies[k]);
    FINE(gpu.set(1, static_cast<unsigned char>(10 + k)));
    FINE(gpu.end(&same));
  }
  gpu.begin(graph, &node, 1);
  FINE(gpu.set(2, 1));
  CUgraphExec early = nullptr;
  EXPECT(CU(cuGraphInstantiateWithFlags, 11040)(&early, graph, 0) == CUDA_ERROR_INVALID_VALUE);
  FINE(gpu.end(&same));
  return graph;
}

void test_switch() {
  struct Case {
    unsigned at_launch, flags;
    int choose, found;
  };
  const Case cases[] = {{2, 1, 0, 10}, {2, 1, 1, 11}, {2, 1, 2, 0}, {2, 1, -1, 0}, {0, 1, -1, 10}, {0, 0, -1, 11}};
  for (const Case& c : cases) {
    const Gpu gpu;
    CUgraphConditionalHandle handle = 0;
    const CUgraph graph = switching(gpu, &handle, c.at_launch, c.flags, c.choose);
    CUgraphExec exec = nullptr;
    FINE(CU(cuGraphInstantiateWithFlags, 11040)(&exec, graph, 0));
    FINE(CU(cuGraphDestroy, 10000)(graph));
    for (int launch = 0; launch < 2; ++launch) {
      for (size_t k = 0; k < 3; ++k) FINE(gpu.set(k, 0));
      FINE(CU(cuGraphLaunch, 10000)(exec, gpu.stream));
      EXPECT(stand_in_calls("cuGraphLaunch") > 0);
      FINE(gpu.wait());
      EXPECT(gpu.at(0) == 1 && gpu.at(1) == c.found && gpu.at(2) == 1);
    }
    FINE(CU(cuGraphExecDestroy, 10000)(exec));
  }
}

void test_captures() {
  const Gpu gpu;
  CUgraph graph = nullptr;
  CUdeviceptr more = 0;
  // what no capture hears of ends it
  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT(CU(cuMemAlloc, 3020)(&more, 1) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT(gpu.set(0, 1) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT(gpu.end(&graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && !graph);
  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT(gpu.wait() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT(gpu.end(&graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && stand_in_alive("graph") == 0);
  // nodes, and a graph within a graph
  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  FINE(gpu.set(0, 1));
  FINE(gpu.end(&graph));
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_GRAPH;
  params.graph.graph = graph;
  CUgraph outer = nullptr, child = nullptr;
  CUgraphNode node = nullptr, found[3] = {};
  FINE(CU(cuGraphCreate, 10000)(&outer, 0));
  FINE(CU(cuGraphAddNode, 12030)(&node, outer, nullptr, nullptr, 0, &params));
  FINE(CU(cuGraphDestroy, 10000)(graph));
  FINE(CU(cuGraphChildGraphNodeGetGraph, 10000)(node, &child));
  size_t count = 3;
  FINE(CU(cuGraphGetNodes, 10000)(child, found, &count));
  CUgraphNodeType type{};
  FINE(CU(cuGraphNodeGetType, 10000)(found[0], &type));
  EXPECT(count == 1 && type == CU_GRAPH_NODE_TYPE_MEMSET);
  FINE(CU(cuGraphDestroy, 10000)(outer));
  EXPECT(CU(cuGraphDestroy, 10000)(outer) == CUDA_ERROR_INVALID_VALUE);
}

void test_failing() {
  const Gpu gpu;
  stand_in_fail("cuMemsetD8Async", 2);
  FINE(gpu.set(0, 1));
  EXPECT(gpu.set(1, 1) == CUDA_ERROR_ILLEGAL_ADDRESS);
  FINE(gpu.set(2, 1));
  EXPECT(stand_in_calls("cuMemsetD8Async") == 3);
  FINE(gpu.wait());
  EXPECT(gpu.at(0) == 1 && gpu.at(1) == 0xFF && gpu.at(2) == 1);
  CUdeviceptr more = 0;
  FINE(CU(cuMemAlloc, 3020)(&more, 1));
  stand_in_fail("cuMemFree", 1);
  EXPECT(CU(cuMemFree, 3020)(more) == CUDA_ERROR_ILLEGAL_ADDRESS && stand_in_alive("memory") == 1);
  // work that fails, fails its stream
  FINE(CUresult(stand_in_submit(gpu.stream, kStandInKernel, [] { throw std::runtime_error("as the test wants it"); })));
  EXPECT(gpu.wait() == CUDA_ERROR_ILLEGAL_ADDRESS && gpu.set(0, 2) == CUDA_ERROR_ILLEGAL_ADDRESS);
}

using Reconstruct = int (*)(int, const void*, const int*, void*, int, int, int, int, int, void*);

// Two tokens after a class token, at positions 3 and 1 of four.
void test_kernel() {
  const auto reconstruct =
      reinterpret_cast<Reconstruct>(dlsym(dlopen("libdovit_plugins.so", RTLD_NOW), "dovit_reconstruct"));
  const Gpu gpu;
  CUdeviceptr place = 0;
  FINE(CU(cuMemAlloc, 3020)(&place, 4096));
  auto* const tokens = reinterpret_cast<float*>(place);
  float* const full = tokens + 64;
  int* const index = reinterpret_cast<int*>(tokens + 512);
  const auto queue = [&](void* stream) { return reconstruct(0, tokens, index, full, 1, 2, 1, 4, 5, stream); };
  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT(queue(gpu.stream) == 0);
  CUgraph graph = nullptr;
  FINE(gpu.end(&graph));
  CUgraphExec exec = nullptr;
  FINE(CU(cuGraphInstantiateWithFlags, 11040)(&exec, graph, 0));
  for (int k = 0; k < 15; ++k) tokens[k] = static_cast<float>(k);
  index[0] = 3;
  index[1] = 1;
  std::memset(full, 0, 20 * sizeof *full);
  FINE(CU(cuGraphLaunch, 10000)(exec, gpu.stream));
  EXPECT(full[15] == 0);
  FINE(gpu.wait());
  for (int k = 0; k < 5; ++k)
    EXPECT(full[k] == 0 && full[5 + k] == tokens[10 + k] && full[10 + k] == 0 && full[15 + k] == tokens[5 + k]);
  stand_in_fail("launch", 1);
  EXPECT(queue(gpu.stream) == CUDA_ERROR_ILLEGAL_ADDRESS && queue(gpu.stream) == 0);
  FINE(CU(cuGraphExecDestroy, 10000)(exec));
  FINE(CU(cuGraphDestroy, 10000)(graph));
  FINE(CU(cuMemFree, 3020)(place));
}

using Slot = void (*)();

// A function of a TensorRT object's implementation.
template <class Result, class... Arguments>
Result call(void* object, size_t slot, Arguments... arguments) {
  void* const impl = static_cast<void**>(object)[1];
  return reinterpret_cast<Result (*)(void*, Arguments...)>((*static_cast<Slot**>(impl))[slot])(impl, arguments...);
}
void destroy(void* object) { reinterpret_cast<void (*)(void*)>((*static_cast<Slot**>(object))[1])(object); }

std::string said;
void log(void*, int32_t severity, const char* message) {
  if (severity <= 1) said = message;
}

struct Dims {
  int32_t count;
  int64_t sizes[8];
};

struct Slots {
  const char* library;
  int32_t version;
  size_t scratch, profile, shape, address, enqueue, memory;
};

void test_plan(const Slots& slots, const std::string& file) {
  const bool is_rtx = slots.version < 100000;
  void* const library = dlopen(slots.library, RTLD_NOW);
  EXPECT(library);
  const auto create = reinterpret_cast<void* (*)(void*, int32_t)>(dlsym(library, "createInferRuntime_INTERNAL"));
  Slot log_table[5] = {};
  log_table[is_rtx ? 4 : 0] = reinterpret_cast<Slot>(&log);
  const Slot* logger = log_table;
  std::ifstream stream(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  const Gpu gpu;
  void* const runtime = create(&logger, slots.version);
  EXPECT(!call<void*>(runtime, 3, static_cast<const void*>("garbage"), size_t(7)) && said.find("not a plan") == 0);
  void* const engine = call<void*>(runtime, 3, static_cast<const void*>(bytes.data()), bytes.size());
  const auto scratch_bytes = call<int64_t>(engine, slots.scratch);
  void* context = nullptr;
  if (is_rtx) {
    void* const config = call<void*>(engine, 48);
    call<void>(config, 3, int32_t(2));
    call<void>(config, 8, int32_t(1));
    context = call<void*>(engine, 47, config);
    destroy(config);
  } else {
    context = call<void*>(engine, 5, int32_t(2));
  }
  CUdeviceptr scratch = 0, memory = 0;
  FINE(CU(cuMemAlloc, 3020)(&scratch, size_t(scratch_bytes)));
  FINE(CU(cuMemAlloc, 3020)(&memory, 4096));
  auto* const a = reinterpret_cast<float*>(memory);
  float *const b = a + 64, *const sum = a + 128;
  const auto enqueue = [&] { return call<bool>(context, slots.enqueue, gpu.stream); };
  const auto address = [&](const char* name, float* place) {
    return call<bool>(context, slots.address, name, static_cast<void*>(place));
  };
  EXPECT(!enqueue() && said == "too little device memory was given");
  call<void>(context, slots.memory, reinterpret_cast<void*>(scratch), scratch_bytes);
  EXPECT(!enqueue() && said == "the input a has no shape");
  const Dims two{2, {2, 3}}, wrong{2, {2, 4}};
  EXPECT(!call<bool>(context, slots.shape, "a", &wrong) && !call<bool>(context, slots.shape, "a", &two));
  EXPECT(said == "the input a is not of this shape in profile 0");
  EXPECT(!call<bool>(context, slots.profile, int32_t(2), gpu.stream) && !enqueue() && said == "no profile is selected");
  EXPECT(call<bool>(context, slots.profile, int32_t(1), gpu.stream) && call<bool>(context, slots.shape, "a", &two));
  EXPECT(address("a", a) && address("b", b) && !address("c", b));
  EXPECT(!enqueue() && said == "the output sum has no address");
  EXPECT(address("sum", sum));
  for (int k = 0; k < 6; ++k) a[k] = static_cast<float>(k);
  for (int k = 0; k < 3; ++k) b[k] = 10.0F;

  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT(!enqueue() && said == "new shapes are to run once before they are captured");
  CUgraph graph = nullptr;
  FINE(gpu.end(&graph));
  FINE(CU(cuGraphDestroy, 10000)(graph));
  EXPECT(enqueue() && sum[0] != 10.0F);
  FINE(gpu.wait());
  for (int k = 0; k < 6; ++k) EXPECT(sum[k] == static_cast<float>(10 + k));
  EXPECT(sum[6] != sum[6] && *reinterpret_cast<unsigned char*>(scratch) == 0xEE);  // poison is not a number

  stand_in_add_foreign_node(1);
  FINE(CU(cuStreamBeginCapture, 10010)(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  EXPECT(enqueue());
  FINE(gpu.end(&graph));
  CUgraphNode nodes[3];
  size_t count = 3;
  CUgraphNodeType type{};
  FINE(CU(cuGraphGetNodes, 10000)(graph, nodes, &count));
  FINE(CU(cuGraphNodeGetType, 10000)(nodes[1], &type));
  EXPECT(count == 2 && type == CU_GRAPH_NODE_TYPE_HOST);
  FINE(CU(cuGraphDestroy, 10000)(graph));
  EXPECT(stand_in_alive("context") == 1 && stand_in_alive("engine") == 1 && stand_in_alive("runtime") == 1);
  destroy(context);
  destroy(engine);
  destroy(runtime);
  FINE(CU(cuMemFree, 3020)(memory));
  FINE(CU(cuMemFree, 3020)(scratch));
}

void test_plans(const std::string& file) {
  test_plan({"libnvinfer.so.10", 101401, 52, 17, 21, 24, 37, 49}, file);
  test_plan({"libtensorrt_rtx.so.1", 10701, 44, 16, 20, 23, 36, 48}, file);
}

// Each captures and launches by itself; none of their captures is disturbed by another's memory.
void test_threads() {
  std::vector<std::thread> threads;
  for (int k = 0; k < 8; ++k)
    threads.emplace_back([k] {
      const Gpu gpu;
      CUgraphConditionalHandle handle = 0;
      const CUgraph graph = switching(gpu, &handle, 2, 1, k % 3);
      CUgraphExec exec = nullptr;
      FINE(CU(cuGraphInstantiateWithFlags, 11040)(&exec, graph, 0));
      for (int turn = 0; turn < 20; ++turn) {
        for (size_t at = 0; at < 3; ++at) FINE(gpu.set(at, 0));
        FINE(CU(cuGraphLaunch, 10000)(exec, gpu.stream));
        FINE(gpu.wait());
        EXPECT(gpu.at(1) == (k % 3 == 2 ? 0 : 10 + k % 3) && gpu.at(2) == 1);
      }
      FINE(CU(cuGraphDestroy, 10000)(graph));
      FINE(CU(cuGraphExecDestroy, 10000)(exec));
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const std::string wanted = arguments[1];
  const std::map<std::string, std::function<void()>> cases{
      {"waiting", test_waiting}, {"versions", test_versions}, {"copies", test_copies},
      {"switch", test_switch},   {"captures", test_captures}, {"failing", test_failing},
      {"kernel", test_kernel},   {"threads", test_threads},   {"plans", [&] { test_plans(arguments[2]); }}};
  cases.at(wanted)();
  nothing_is_left();
  stand_in_reset();
  return 0;
}
