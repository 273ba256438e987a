// Threads. Work is cut into items whose results land in places of their own, so that which thread takes an item, and
// how many threads there are, cannot change a bit of any result.
#pragma once
#include <cstdint>
#include <functional>

namespace fastntk {

/// Number of threads used by parallel_for; at first the number of processors this process may run on.
int thread_count();
void set_thread_count(int threads);

/// Calls body(i) for i in [0, items), spread over the threads; returns when all are done. Inside a body, a nested
/// parallel_for runs its items one after another on the calling thread. The first exception thrown by a body (the one
/// of the smallest i) is rethrown after the others have finished.
void parallel_for(int64_t items, const std::function<void(int64_t)>& body);
/// The same over ranges [from, to) of `grain` items, the last one shorter.
void parallel_ranges(int64_t items, int64_t grain, const std::function<void(int64_t from, int64_t to)>& body);
/// True inside a body of parallel_for.
bool in_parallel();

}  // namespace fastntk
