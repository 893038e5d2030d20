// Faults that would hang a GPU, chosen by name: the emulator reports each and aborts.
#include <cstring>

namespace {

bool is(const char* name, const char* wanted) { return std::strcmp(name, wanted) == 0; }

__global__ void kernel(const char* fault) {
  const bool chosen = threadIdx.x == 37;
  if (is(fault, "shuffle after return") && chosen) return;
  if (is(fault, "shuffle without a lane") && chosen) __syncthreads();
  if (is(fault, "shuffle beside a barrier") && !chosen) __syncthreads();
  __shfl_xor_sync(0xffffffffu, 1, 16);
  if (is(fault, "barrier after return") && chosen) return;
  if (is(fault, "barrier after a warp's return") && threadIdx.x >= 32) return;
  __syncthreads();
  if (is(fault, "one more barrier") && chosen) __syncthreads();
}

}  // namespace

int main(int, char** arguments) {
  const char* fault = arguments[1];
  const int threads = is(fault, "part of a warp") ? 40 : is(fault, "large block") ? 1056 : 64;
  const dim3 grid(is(fault, "empty grid") ? 0 : 2, is(fault, "high grid") ? 65536 : 1);
  kernel<<<grid, threads, 0, stream>>>(fault);
}
