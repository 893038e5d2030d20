#include "decide.cuh"

namespace dovit {

void launch_decide_and_switch(dovit_decide_args a, cudaStream_t stream) {
  decide_kernel<true><<<a.batch, kDecideThreads, 0, stream>>>(a);
}

}  // namespace dovit
