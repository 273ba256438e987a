#include "engine/emu/fiber.h"

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstdint>
#include <cstring>
#include <new>

#include "engine/emu/sanitizers.h"

#if defined(__x86_64__)
// Saves what a callee must preserve on this stack, and continues on the other. A system call for every switch, as
// swapcontext makes one, would be most of the time that an emulated kernel takes.
extern "C" void fastntk_switch_stack(void** save, void* load);
asm(R"(
.text
.type fastntk_switch_stack, @function
fastntk_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size fastntk_switch_stack, .-fastntk_switch_stack
)");
#endif

namespace fastntk::emu {
namespace {

thread_local void* entered = nullptr;  // the state of the fiber that resume() is entering

constexpr size_t guard_bytes = 4096;
// Frames are several times larger under the address sanitizer.
constexpr size_t stack_bytes = size_t{under_asan ? 256 : 64} << 10;

}  // namespace

struct Fiber::State {
  void (*entry)(void*);
  void* argument;
  char* stack = nullptr;
#if defined(__x86_64__)
  void *here = nullptr, *host = nullptr;
  void enter() { fastntk_switch_stack(&host, here); }
  void leave() { fastntk_switch_stack(&here, host); }
#else
  ucontext_t here{}, host{};
  void enter() { swapcontext(&host, &here); }
  void leave() { swapcontext(&here, &host); }
#endif
  void *tsan = nullptr, *tsan_host = nullptr;
  void *fake_stack = nullptr, *fake_stack_host = nullptr;
  const void* host_stack = nullptr;
  size_t host_stack_bytes = 0;
};

Fiber::Fiber(void (*entry)(void*), void* argument) : state_(new State{entry, argument}) {
  State& s = *state_;
  void* const memory = mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard_bytes, PROT_NONE);  // a stack that grows too far stops the program
  s.stack = static_cast<char*>(memory) + guard_bytes;
#if defined(__x86_64__)
  // What fastntk_switch_stack pops: six registers and where to continue. begin() then finds the stack as after a call.
  auto** top = reinterpret_cast<void**>(s.stack + stack_bytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(+[] { Fiber::begin(); });
  top -= 6;
  std::memset(top, 0, 6 * sizeof(void*));
  s.here = top;
#else
  getcontext(&s.here);
  s.here.uc_stack.ss_sp = s.stack;
  s.here.uc_stack.ss_size = stack_bytes;
  s.here.uc_link = nullptr;
  makecontext(&s.here, reinterpret_cast<void (*)()>(+[] { Fiber::begin(); }), 0);
#endif
  FASTNTK_TSAN(s.tsan = __tsan_create_fiber(0));
}

Fiber::~Fiber() {
  FASTNTK_TSAN(__tsan_destroy_fiber(state_->tsan));
  munmap(state_->stack - guard_bytes, stack_bytes + guard_bytes);
  delete state_;
}

FASTNTK_OUTSIDE_TSAN void Fiber::begin() {
  State& s = *static_cast<State*>(entered);
  FASTNTK_ASAN(__sanitizer_finish_switch_fiber(nullptr, &s.host_stack, &s.host_stack_bytes));
  s.entry(s.argument);
  __builtin_trap();  // an entry never returns
}

FASTNTK_OUTSIDE_TSAN void Fiber::resume() {
  State& s = *state_;
  entered = &s;
  FASTNTK_TSAN(s.tsan_host = __tsan_get_current_fiber();
               __tsan_switch_to_fiber(s.tsan, __tsan_switch_to_fiber_no_sync));
  FASTNTK_ASAN(__sanitizer_start_switch_fiber(&s.fake_stack_host, s.stack, stack_bytes));
  s.enter();
  FASTNTK_ASAN(__sanitizer_finish_switch_fiber(s.fake_stack_host, nullptr, nullptr));
}

FASTNTK_OUTSIDE_TSAN void Fiber::suspend() {
  State& s = *state_;
  FASTNTK_TSAN(__tsan_switch_to_fiber(s.tsan_host, __tsan_switch_to_fiber_no_sync));
  FASTNTK_ASAN(__sanitizer_start_switch_fiber(&s.fake_stack, s.host_stack, s.host_stack_bytes));
  s.leave();
  FASTNTK_ASAN(__sanitizer_finish_switch_fiber(s.fake_stack, &s.host_stack, &s.host_stack_bytes));
}

}  // namespace fastntk::emu
