// A parallel loop. Threads live for one call: nothing runs, and nothing can deadlock after a fork,
// between calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace kad {

/// Workers that parallel_for uses, to size scratch: never more than there are tasks.
inline int32_t worker_count(int64_t n_tasks, int32_t n_threads) {
  return static_cast<int32_t>(std::clamp<int64_t>(n_tasks, 1, std::max(n_threads, 1)));
}

/// Run body(task, worker) for every task in [0, n_tasks), worker in [0, worker_count()).
///
/// Tasks are claimed from a counter, so a task must not depend on which worker runs it. The first
/// exception stops the claiming and is rethrown. When the system gives no further thread, the loop
/// goes on with those it has. Threads inherit the caller's rounding mode.
template <class F>
void parallel_for(int64_t n_tasks, int32_t n_threads, F&& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&](int32_t worker) {
    try {
      for (int64_t task = next++; task < n_tasks; task = next++) body(task, worker);
    } catch (...) {
      next = n_tasks;
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const int32_t n_workers = worker_count(n_tasks, n_threads);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(n_workers - 1));
  try {
    for (int32_t worker = 1; worker < n_workers; ++worker) threads.emplace_back(work, worker);
  } catch (const std::exception&) {  // no further thread, or no memory for one
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace kad
