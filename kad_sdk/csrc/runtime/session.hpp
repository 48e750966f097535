// One thread's scratch memory, and scoring with it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/stopwatch.hpp"
#include "runtime/detector.hpp"
#include "runtime/placed_rules.hpp"
#include "runtime/prepare.hpp"
#include "runtime/result.hpp"

namespace kad {

struct CloseBoard {
  void operator()(kad_board* board) const { kad_board_close(board); }
};

struct CloseWindows {
  void operator()(kad_windows* windows) const { kad_windows_close(windows); }
};

using Stopwatch = StopwatchOf<std::chrono::duration<double, std::milli>>;

class Session {
 public:
  explicit Session(std::shared_ptr<const Detector> detector);

  /// Score a board.
  std::unique_ptr<kad_result> score(const kad_image& image, const kad_score_request& request);

  /// Score tiles of an image, a batch at a time, into the caller's memory.
  void score_tiles(const kad_image& image, const int32_t* xy, int64_t n, const Findings& out);

  /// End the call that is under way in another thread, or else the next one.
  void cancel() noexcept;
  void forget_cancel() noexcept;

 private:
  /// Whether a tile's patches are computed at all.
  bool makes_patches() const;
  /// The session's own memory, but for scores.
  Findings scratch();
  /// Score n tiles, at most a batch, into `found`.
  void score_batch(const kad_image& image, const int32_t* xy, int64_t n, const Findings& found,
                   kad_result_facts* timings);
  void run_network(int64_t n);
  /// Score the board in windows; `areas` in px of the frame.
  void score_windows(const kad_image& frame, const Annotation& areas,
                     const kad_score_request& request, Result* result);
  void make_windows(const kad_image& frame, const Annotation& areas, const Result& result);
  void score_window(const kad_image& frame, const kad_window& window, int64_t i,
                    kad_result_facts* timings);
  template <class F>
  void run_or_cancel(F&& run);
  void score_all(const kad_image& frame, const kad_score_request& request, Result* result);
  void make_board(Size frame);
  void make_map(const Annotation& areas, const PlacedRules* rules, Result* result);
  void find_regions(const float* map, int64_t min_area, Result* result);
  void check_cancelled() const;

  std::shared_ptr<const Detector> detector_;
  std::unique_ptr<NetworkRun> network_;
  std::mutex cancel_mutex_;  // cancelled_ and the network's own flag change together
  std::atomic<bool> cancelled_{false};

  std::vector<float> tiles_;                 // (batch, 3, t, t)
  std::vector<std::vector<float>> outputs_;  // (batch, ...) of each output
  std::vector<float*> output_data_;
  std::vector<float> patches_;     // (batch, P)
  std::vector<int64_t> rows_;      // (batch, P)
  std::vector<float> embeddings_;  // (batch, E)
  std::vector<uint8_t> frame_;     // the resized board
  std::vector<kad_region> regions_;
  std::unique_ptr<kad_board, CloseBoard> board_;
  Size board_size_;
  std::unique_ptr<kad_windows, CloseWindows> windows_;
};

}  // namespace kad

struct kad_session : kad::Session {
  using kad::Session::Session;
};
