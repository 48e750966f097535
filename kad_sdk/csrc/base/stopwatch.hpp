// The time that blocks take.
#pragma once

#include <chrono>

namespace kad {

/// Adds the time that a block takes to a total in units of Duration.
template <class Duration>
class StopwatchOf {
 public:
  using Total = typename Duration::rep;

  explicit StopwatchOf(Total* total) : total_(total), start_(Clock::now()) {}
  ~StopwatchOf() { *total_ += std::chrono::duration_cast<Duration>(Clock::now() - start_).count(); }
  StopwatchOf(const StopwatchOf&) = delete;
  StopwatchOf& operator=(const StopwatchOf&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  Total* total_;
  Clock::time_point start_;
};

}  // namespace kad
