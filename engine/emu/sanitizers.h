// What the emulator tells the sanitizers, and nothing in a plain build.
#pragma once

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define FASTNTK_TSAN(...) __VA_ARGS__
// The thread sanitizer keeps a stack of calls by fiber: functions in which the fiber changes must stay out of it.
#define FASTNTK_OUTSIDE_TSAN __attribute__((no_sanitize("thread"), noinline))
#else
#define FASTNTK_TSAN(...)
#define FASTNTK_OUTSIDE_TSAN
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FASTNTK_ASAN(...) __VA_ARGS__
#else
#define FASTNTK_ASAN(...)
#endif

namespace fastntk::emu {

#if defined(__SANITIZE_THREAD__)
constexpr bool under_tsan = true;
#else
constexpr bool under_tsan = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool under_asan = true;
#else
constexpr bool under_asan = false;
#endif

}  // namespace fastntk::emu
