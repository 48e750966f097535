// Scoring a board: prepare, plan, score its tiles, map, regions, verdict.
#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/rounding.hpp"
#include "runtime/session.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

// Of the active areas without the labels: the share of pixels where the map is not NaN.
double scored_share(const float* map, Size size, const Annotation& areas) {
  const auto width = static_cast<size_t>(size.width);
  std::vector<uint8_t> wanted(static_cast<size_t>(size.height) * width, areas.borders.empty());
  const auto fill = [&](const std::vector<kad_rect>& rects, uint8_t value) {
    for (const kad_rect& rect : rects) {
      for (int32_t y = rect.y; y < rect.y + rect.height; ++y) {
        std::fill_n(&wanted[static_cast<size_t>(y) * width + static_cast<size_t>(rect.x)],
                    rect.width, value);
      }
    }
  };
  fill(areas.borders, 1);
  fill(areas.labels, 0);
  int64_t all = 0, scored = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    all += wanted[i];
    scored += wanted[i] & static_cast<uint8_t>(map[i] == map[i]);
  }
  return static_cast<double>(scored) / static_cast<double>(std::max<int64_t>(all, 1));
}

}  // namespace

void Session::make_board(Size frame) {
  if (board_ != nullptr && board_size_.height == frame.height && board_size_.width == frame.width) {
    check_stage(kad_board_clear(board_.get()));
    return;
  }
  board_.reset();
  const Size grid = detector_->scorer->grid();
  kad_board_options options = {};
  options.struct_size = sizeof(options);
  options.image_height = frame.height;
  options.image_width = frame.width;
  options.tile = detector_->manifest().preprocessing.tile;
  options.grid_height = grid.height;
  options.grid_width = grid.width;
  options.smoothing_radius = detector_->manifest().map.radius;
  options.smoothing_sigma = static_cast<float>(detector_->manifest().map.sigma);
  kad_board* board = nullptr;
  check_stage(kad_board_create(&options, &board));
  board_.reset(board);
  board_size_ = frame;
}

void Session::score_all(const kad_image& frame, const kad_score_request& request, Result* result) {
  const Detector& detector = *detector_;
  const auto n = static_cast<int64_t>(result->xy.size() / 2);
  const int64_t dims = detector.scorer->embedding_dims();
  const bool searches = detector.manifest().method == Method::patchcore;
  result->scores.resize(static_cast<size_t>(n));
  check_count(n, dims, "tiles");
  result->embeddings.resize(static_cast<size_t>(n * dims));
  if (detector.makes_maps()) make_board({frame.height, frame.width});
  for (int64_t first = 0; first < n; first += detector.options.batch) {
    const int64_t count = std::min<int64_t>(detector.options.batch, n - first);
    const int32_t* xy = result->xy.data() + 2 * first;
    Findings found = scratch();
    found.scores = result->scores.data() + first;
    if (dims > 0) found.embeddings = result->embeddings.data() + first * dims;
    in_batch(first, [&] {
      score_batch(frame, xy, count, found, &result->facts);
      if (!detector.makes_maps()) return;
      const Stopwatch watch(&result->facts.map_ms);
      check_stage(kad_board_add(board_.get(), xy, count, patches_.data(),
                                searches ? rows_.data() : nullptr, detector.options.n_threads));
    });
    if (request.progress != nullptr &&
        request.progress(request.progress_context, first + count, n) != 0) {
      fail(KAD_ERROR_CANCELLED, "the caller's progress function ended the call");
    }
  }
}

void Session::find_regions(const float* map, int64_t min_area, Result* result) {
  // Not the nearest float32, which may lie below: then a board that passes could have a region.
  const float threshold =
      round_to(detector_->map_threshold, std::numeric_limits<float>::infinity());
  if (regions_.empty()) regions_.resize(64);
  int64_t n = 0;
  const auto find = [&] {
    const auto capacity = static_cast<int64_t>(regions_.size());
    if (detector_->in_windows()) {
      return kad_windows_regions(windows_.get(), map, threshold, min_area, sizeof(kad_region),
                                 regions_.data(), capacity, &n);
    }
    return kad_board_regions(board_.get(), map, threshold, min_area, sizeof(kad_region),
                             regions_.data(), capacity, &n);
  };
  kad_status status = find();
  if (status == KAD_ERROR_BUFFER_TOO_SMALL) {
    regions_.resize(static_cast<size_t>(n));
    status = find();
  }
  check_stage(status);
  for (int64_t i = 0; i < n; ++i) result->add_region(regions_[static_cast<size_t>(i)]);
}

// The map in px of the frame, its peak and regions by the rules, or NULL; then, where they differ,
// in px of the image.
void Session::make_map(const Annotation& areas, const PlacedRules* rules, Result* result) {
  kad_result_facts& facts = result->facts;
  const int32_t n_threads = detector_->options.n_threads;
  const auto allocate = [](int64_t height, int64_t width) {
    return std::unique_ptr<float[]>(new float[static_cast<size_t>(height * width)]);
  };
  auto map = allocate(facts.frame_height, facts.frame_width);
  {
    const Stopwatch watch(&facts.map_ms);
    check_stage(detector_->in_windows()
                    ? kad_windows_map(windows_.get(), nullptr, n_threads, map.get())
                    : kad_board_map(board_.get(), n_threads, map.get()));
    facts.scored_share = scored_share(map.get(), {facts.frame_height, facts.frame_width}, areas);
  }
  const Stopwatch watch(&facts.regions_ms);
  const int64_t exported = detector_->artifact.thresholds.min_region_area_px;
  const int64_t min_area = rules == nullptr ? 0 : rules->min_region_area;
  if (rules != nullptr) rules->judge_map(map.get());
  float peak = 0.0F;
  check_stage(kad_map_peak(map.get(), facts.frame_height, facts.frame_width,
                           std::max<int64_t>(min_area, 1), &peak));
  result->decide(peak);
  find_regions(map.get(), min_area > 0 ? min_area : exported, result);
  if (facts.frame_height != facts.image_height || facts.frame_width != facts.image_width) {
    auto resized = allocate(facts.image_height, facts.image_width);
    check_stage(kad_map_resize(map.get(), facts.frame_height, facts.frame_width, facts.image_height,
                               facts.image_width, n_threads, resized.get()));
    map = std::move(resized);
  }
  result->map = std::move(map);
}

std::unique_ptr<kad_result> Session::score(const kad_image& image,
                                           const kad_score_request& request) {
  auto result = std::make_unique<kad_result>(detector_);
  kad_result_facts& facts = result->facts;
  {
    const Stopwatch total(&facts.total_ms);
    const PreprocessingSettings& settings = detector_->manifest().preprocessing;
    const kad_detector_options& options = detector_->options;
    const Size size = {image.height, image.width};
    kad_image frame = image;
    std::optional<PlacedRules> rules;
    Annotation areas;
    {
      const Stopwatch watch(&facts.prepare_ms);
      Annotation annotation = read_annotation(request, size);
      frame = prepare_image(image, settings, {options.denoise, options.denoise_context},
                            options.n_threads, &frame_);
      const Size frame_size = {frame.height, frame.width};
      if (frame.height != size.height || frame.width != size.width) {
        annotation = resize_annotation(annotation, size, frame_size);
      }
      plan_tiles(frame_size, settings, annotation, &result->xy);
      if (detector_->rules().any()) {
        rules = place_rules(detector_->rules(), size, frame_size, annotation.borders);
        rules->judge_tiles(result->xy, settings.tile, &result->factors);
      }
      areas = std::move(annotation);
    }
    facts.image_height = size.height;
    facts.image_width = size.width;
    facts.frame_height = frame.height;
    facts.frame_width = frame.width;
    if (detector_->in_windows()) {
      score_windows(frame, areas, request, result.get());
    } else {
      score_all(frame, request, result.get());
    }
    if (detector_->makes_maps()) {
      make_map(areas, rules ? &*rules : nullptr, result.get());
      check_cancelled();
    } else {
      facts.scored_share = -1.0;
      result->decide(0.0F);
    }
  }
  return result;
}

}  // namespace kad
