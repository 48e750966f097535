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
  if (detector_->in_windows()) {  // of which sizes, the board will tell
    outputs_.resize(detector_->graph.outputs.size());
    output_data_.resize(outputs_.size());
    return;
  }
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

template <class F>
void Session::run_or_cancel(F&& run) {
  try {
    run();
  } catch (const Error&) {
    check_cancelled();  // then the network failed because it was stopped
    throw;
  }
}

void Session::run_network(int64_t n) {
  run_or_cancel([&] { network_->run(tiles_.data(), n, output_data_.data()); });
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
  if (detector_->in_windows()) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "this artifact scores boards in windows, not tiles without what surrounds them; score the "
         "board with kad_session_score_image, or export with --mode tiles");
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

// ---- in windows ------------------------------------------------------------------------------

void Session::make_windows(const kad_image& frame, const Annotation& areas, const Result& result) {
  const Manifest& manifest = detector_->manifest();
  const WindowSettings& settings = *manifest.patchcore.windows;
  kad_windows_options options = {};
  options.struct_size = sizeof(options);
  options.image_height = frame.height;
  options.image_width = frame.width;
  options.window = settings.window;
  options.halo = settings.halo;
  options.align = settings.align;
  options.patch = settings.patch;
  options.tile = manifest.preprocessing.tile;
  options.label_margin = settings.label_margin;
  options.smoothing_radius = manifest.map.radius;
  options.smoothing_sigma = static_cast<float>(manifest.map.sigma);
  options.borders = areas.borders.data();
  options.n_borders = static_cast<int64_t>(areas.borders.size());
  options.labels = areas.labels.data();
  options.n_labels = static_cast<int64_t>(areas.labels.size());
  options.xy = result.xy.data();
  options.n_tiles = static_cast<int64_t>(result.xy.size() / 2);
  kad_windows* board = nullptr;
  windows_.reset();
  check_stage(kad_windows_create(&options, &board));
  windows_.reset(board);
}

void Session::score_window(const kad_image& frame, const kad_window& window, int64_t i,
                           kad_result_facts* timings) {
  const PreprocessingSettings& settings = detector_->manifest().preprocessing;
  const int32_t n_threads = detector_->options.n_threads;
  const kad_rect rect = {window.x, window.y, window.width, window.height};
  const Size seen = {window.height, window.width};
  check_cancelled();
  {
    const Stopwatch watch(&timings->preprocess_ms);
    const auto values = product(3 * int64_t{window.height}, window.width);
    if (tiles_.size() < values) tiles_.resize(values);
    check_stage(kad_preprocess_window(&frame, &rect, settings.mean, settings.std, n_threads,
                                      tiles_.data()));
  }
  std::vector<Size> sizes;
  for (size_t j = 0; j < outputs_.size(); ++j) {
    const GraphOutput& output = detector_->graph.outputs[j];
    const auto cell = static_cast<int32_t>(settings.tile / output.height);
    sizes.push_back({(seen.height - 1) / cell + 1, (seen.width - 1) / cell + 1});
    const auto values = product(output.channels * sizes[j].height, sizes[j].width);
    if (outputs_[j].size() < values) outputs_[j].resize(values);
    output_data_[j] = outputs_[j].data();
  }
  {
    const Stopwatch watch(&timings->network_ms);
    run_or_cancel([&] { network_->run_window(tiles_.data(), seen, sizes, output_data_.data()); });
  }
  const Stopwatch watch(&timings->search_ms);
  detector_->scorer->score_window(windows_.get(), i, seen, output_data_.data(), sizes, n_threads);
  check_cancelled();
}

void Session::score_windows(const kad_image& frame, const Annotation& areas,
                            const kad_score_request& request, Result* result) {
  make_windows(frame, areas, *result);
  int64_t n = 0;
  kad_windows_plan(windows_.get(), nullptr, 0, &n);
  std::vector<kad_window> plan(static_cast<size_t>(n));
  check_stage(kad_windows_plan(windows_.get(), plan.data(), n, &n));
  for (int64_t i = 0; i < n; ++i) {
    score_window(frame, plan[static_cast<size_t>(i)], i, &result->facts);
    if (request.progress != nullptr && request.progress(request.progress_context, i + 1, n) != 0) {
      fail(KAD_ERROR_CANCELLED, "the caller's progress function ended the call");
    }
  }
  const Stopwatch watch(&result->facts.search_ms);
  result->scores.resize(result->xy.size() / 2);
  check_stage(kad_windows_tiles(windows_.get(), result->scores.data(), nullptr, nullptr));
}

}  // namespace kad
