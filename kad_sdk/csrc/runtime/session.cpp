#include "runtime/session.hpp"

#include <algorithm>
#include <utility>

#include "image/image.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

size_t product(int64_t a, int64_t b) {
  check_count(a, b, "batch");
  return static_cast<size_t>(a * b);
}

}  // namespace

Session::Session(std::shared_ptr<const Detector> detector)
    : detector_(std::move(detector)), network_(detector_->network->make_run()) {
  const int64_t batch = detector_->options.batch;
  const int64_t side = detector_->graph.tile;
  tiles_.resize(product(batch, 3 * side * side));
  for (const GraphOutput& output : detector_->graph.outputs) {
    outputs_.emplace_back(product(batch, output.values()));
    output_data_.push_back(outputs_.back().data());
  }
  patches_.resize(product(batch, detector_->scorer->patches()));
  rows_.resize(patches_.size());
  embeddings_.resize(product(batch, detector_->scorer->embedding_dims()));
}

bool Session::makes_patches() const {
  return detector_->makes_maps() || detector_->manifest().method == Method::patchcore;
}

Findings Session::scratch() {
  return {nullptr, makes_patches() ? patches_.data() : nullptr, rows_.data(), embeddings_.data()};
}

void Session::cancel() noexcept {
  const std::lock_guard<std::mutex> lock(cancel_mutex_);
  cancelled_ = true;
  network_->stop();
}

void Session::forget_cancel() noexcept {
  const std::lock_guard<std::mutex> lock(cancel_mutex_);
  cancelled_ = false;
  network_->resume();
}

void Session::check_cancelled() const {
  if (cancelled_) fail(KAD_ERROR_CANCELLED, "the call was cancelled");
}

void Session::run_network(int64_t n) {
  try {
    network_->run(tiles_.data(), n, output_data_.data());
  } catch (const Error&) {
    check_cancelled();  // then the network failed because it was stopped
    throw;
  }
}

void Session::score_batch(const kad_image& image, const int32_t* xy, int64_t n,
                          const Findings& found, kad_result_facts* timings) {
  const PreprocessingSettings& settings = detector_->manifest().preprocessing;
  const int32_t n_threads = detector_->options.n_threads;
  check_cancelled();
  {
    const Stopwatch watch(&timings->preprocess_ms);
    check_stage(kad_preprocess(&image, xy, n, settings.tile, settings.mean, settings.std, n_threads,
                               tiles_.data()));
  }
  {
    const Stopwatch watch(&timings->network_ms);
    run_network(n);
  }
  const Stopwatch watch(&timings->search_ms);
  detector_->scorer->score(output_data_.data(), n, n_threads, found);
  check_cancelled();
}

void Session::score_tiles(const kad_image& image, const int32_t* xy, int64_t n,
                          const Findings& out) {
  const bool patchcore = detector_->manifest().method == Method::patchcore;
  if (out.rows != nullptr && !patchcore) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "out_rows: CutPaste has no memory bank; give NULL");
  }
  if (out.patches != nullptr && !makes_patches()) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "out_patches: this detector was opened with scores_only; give NULL, or open it with maps");
  }
  // Before the first batch is scored, and by their numbers among all.
  check_tiles(xy, n, detector_->manifest().preprocessing.tile, image.height, image.width);
  const int64_t patches = detector_->scorer->patches();
  const int64_t batch = detector_->options.batch;
  kad_result_facts timings = {};
  for (int64_t first = 0; first < n; first += batch) {
    const int64_t count = std::min(batch, n - first);
    Findings found = scratch();
    found.scores = out.scores + first;
    if (out.patches != nullptr) found.patches = out.patches + first * patches;
    if (out.rows != nullptr) found.rows = out.rows + first * patches;
    in_batch(first, [&] { score_batch(image, xy + 2 * first, count, found, &timings); });
  }
}

}  // namespace kad
