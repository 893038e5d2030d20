// Fibres: stacks between which a host thread switches. By hand on x86-64; elsewhere by ucontext, which is
// portable and asks the system for its signal mask every time.
#pragma once

#include <sys/mman.h>

#include <new>

#if !defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT
#endif
#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

constexpr size_t kStackBytes = 64 << 10, kGuardBytes = 64 << 10;  // a page of any system

#ifdef EMULATOR_UCONTEXT
using Fibre = ucontext_t;
inline void switch_fibres(Fibre& from, Fibre& to) { swapcontext(&from, &to); }
#else
struct Fibre {
  void** top;  // of its stack, where what a callee preserves lies while another fibre runs
};

// In assembly altogether, so that no compiler takes it for a function that it knows.
asm(R"(
  .pushsection .text
  .weak emulator_switch
  .hidden emulator_switch
  .type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulator_switch, .-emulator_switch
  .popsection
)");
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(Fibre* from, Fibre* to);
inline void switch_fibres(Fibre& from, Fibre& to) { emulator_switch(&from, &to); }
#endif

// One that calls `entry`, which never returns.
inline Fibre* make_fibre(void (*entry)()) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE)) fail("no memory for a thread's stack");
  char* stack = static_cast<char*>(memory) + kGuardBytes;
  auto* fibre = new (stack) Fibre;  // at the far end, which is not reached
#ifdef EMULATOR_UCONTEXT
  getcontext(fibre);
  fibre->uc_stack.ss_sp = stack;
  fibre->uc_stack.ss_size = kStackBytes;
  makecontext(fibre, entry, 0);
#else
  fibre->top = reinterpret_cast<void**>(stack + kStackBytes) - 8;  // six registers, where to go, and no caller
  fibre->top[6] = reinterpret_cast<void*>(entry);
#endif
  return fibre;
}

}  // namespace emulator
