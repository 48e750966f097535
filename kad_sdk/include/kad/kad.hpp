// kad.hpp - libkad for C++17: owners that close what they hold, failures as exceptions.
//
// A thin wrapper, header only, over kad/kad.h and, where the library has it, kad/detector.h.
// Nothing is computed here; the comments of those headers hold. A call that fails throws
// kad::Failure with the status and the text of kad_last_error().
#ifndef KAD_KAD_HPP
#define KAD_KAD_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kad/kad.h"
#if __has_include("kad/detector.h")
#include "kad/detector.h"
#define KAD_HAS_DETECTOR 1
#endif

namespace kad {
// In symbols the names are kad::api::..., apart from those inside a static libkad.
inline namespace api {

/// A call of the C ABI that failed.
class Failure : public std::runtime_error {
 public:
  Failure(kad_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  kad_status status() const noexcept { return status_; }

 private:
  kad_status status_;
};

/// Throw Failure unless the status is KAD_OK.
inline void check(kad_status status) {
  if (status != KAD_OK) throw Failure(status, kad_last_error());
}

/// A struct of the C ABI, zero but for its struct_size.
template <class Struct>
Struct make() {
  Struct made = {};
  made.struct_size = sizeof(Struct);
  return made;
}

/// Owns a handle of the C ABI and closes it; movable, not copyable.
template <class Handle, void (*close)(Handle*)>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle* handle) noexcept : handle_(handle) {}

  Handle* get() const noexcept { return handle_.get(); }
  explicit operator bool() const noexcept { return handle_ != nullptr; }

 private:
  struct Close {
    void operator()(Handle* handle) const noexcept { close(handle); }
  };
  std::unique_ptr<Handle, Close> handle_;
};

/// An image over the caller's memory, which has to stay in place. row_stride in bytes.
inline kad_image image(const void* data, int32_t height, int32_t width, int64_t row_stride,
                       int32_t pixel_format) {
  kad_image made = make<kad_image>();
  made.pixel_format = pixel_format;
  made.height = height;
  made.width = width;
  made.row_stride = row_stride;
  made.data = data;
  return made;
}

// ---- stages ------------------------------------------------------------------------------------

/// Corners (n, 2) of the tiles of a grid.
inline std::vector<int32_t> plan_tiles(const kad_tile_grid& grid) {
  int64_t n = 0;
  const kad_status status = kad_tiles_plan(&grid, nullptr, 0, &n);
  if (status != KAD_ERROR_BUFFER_TOO_SMALL) check(status);
  std::vector<int32_t> xy(static_cast<std::size_t>(2 * n));
  check(kad_tiles_plan(&grid, xy.data(), n, &n));
  return xy;
}

/// The search index of a bank (rows, dims), which has to stay in place.
class Index : public Owner<kad_index, kad_index_close> {
 public:
  Index(const float* bank, int64_t rows, int64_t dims, int32_t n_threads)
      : Owner(created(bank, rows, dims, n_threads)) {}

 private:
  static kad_index* created(const float* bank, int64_t rows, int64_t dims, int32_t n_threads) {
    kad_index* index = nullptr;
    check(kad_index_create(bank, rows, dims, n_threads, &index));
    return index;
  }
};

/// An empty board, which tile maps are added to.
class Board : public Owner<kad_board, kad_board_close> {
 public:
  explicit Board(const kad_board_options& options) : Owner(created(options)) {}

  /// Regions of a map that kad_board_map gave.
  std::vector<kad_region> regions(const float* map, float threshold, int64_t min_area_px) const {
    int64_t n = 0;
    std::vector<kad_region> found;
    const auto find = [&] {
      return kad_board_regions(get(), map, threshold, min_area_px, sizeof(kad_region), found.data(),
                               static_cast<int64_t>(found.size()), &n);
    };
    kad_status status = find();
    if (status == KAD_ERROR_BUFFER_TOO_SMALL) {
      found.resize(static_cast<std::size_t>(n));
      status = find();
    }
    check(status);
    return found;
  }

 private:
  static kad_board* created(const kad_board_options& options) {
    kad_board* board = nullptr;
    check(kad_board_create(&options, &board));
    return board;
  }
};

#ifdef KAD_HAS_DETECTOR
// ---- detector ----------------------------------------------------------------------------------

/// What scoring a board gave. May be read by several threads.
class Result : public Owner<kad_result, kad_result_close> {
 public:
  using Owner::Owner;

  kad_result_facts facts() const {
    kad_result_facts found = make<kad_result_facts>();
    check(kad_result_info(get(), &found));
    return found;
  }

  std::vector<kad_tile_result> tiles() const {
    std::vector<kad_tile_result> found(static_cast<std::size_t>(facts().n_tiles),
                                       make<kad_tile_result>());
    for (std::size_t i = 0; i < found.size(); ++i) {
      check(kad_result_tile(get(), static_cast<int64_t>(i), &found[i]));
    }
    return found;
  }

  std::vector<kad_region_result> regions() const {
    std::vector<kad_region_result> found(static_cast<std::size_t>(facts().n_regions),
                                         make<kad_region_result>());
    for (std::size_t i = 0; i < found.size(); ++i) {
      check(kad_result_region(get(), static_cast<int64_t>(i), &found[i]));
    }
    return found;
  }
};

/// An opened artifact. Immutable: threads may share it.
class Detector : public Owner<kad_detector, kad_detector_close> {
 public:
  explicit Detector(const std::string& path,
                    const kad_detector_options& options = make<kad_detector_options>())
      : Owner(opened(path, options)) {}

  kad_detector_facts facts() const {
    kad_detector_facts found = make<kad_detector_facts>();
    check(kad_detector_info(get(), &found));
    return found;
  }

 private:
  static kad_detector* opened(const std::string& path, const kad_detector_options& options) {
    kad_detector* detector = nullptr;
    check(kad_detector_open(path.c_str(), &options, &detector));
    return detector;
  }
};

/// One thread's scratch memory.
class Session : public Owner<kad_session, kad_session_close> {
 public:
  explicit Session(const Detector& detector) : Owner(created(detector)) {}

  Result score(const kad_image& image) { return score(image, make<kad_score_request>()); }

  Result score(const kad_image& image, const kad_score_request& request) {
    kad_result* result = nullptr;
    check(kad_session_score_image(get(), &image, &request, &result));
    return Result(result);
  }

  /// Scores of tiles of an image at the corners xy (n, 2).
  std::vector<float> score_tiles(const kad_image& image, const std::vector<int32_t>& xy) {
    if (xy.size() % 2 != 0) {
      throw Failure(KAD_ERROR_INVALID_ARGUMENT, "xy: expected x and y of each tile, got " +
                                                    std::to_string(xy.size()) + " numbers");
    }
    std::vector<float> scores(xy.size() / 2);
    check(kad_session_score_tiles(get(), &image, xy.data(), static_cast<int64_t>(scores.size()),
                                  scores.data(), nullptr, nullptr));
    return scores;
  }

  /// The one function that may be called while another thread uses the session.
  void cancel() { check(kad_session_cancel(get())); }

 private:
  static kad_session* created(const Detector& detector) {
    kad_session* session = nullptr;
    check(kad_session_create(detector.get(), &session));
    return session;
  }
};
#endif  // KAD_HAS_DETECTOR

}  // namespace api
}  // namespace kad
#endif  // KAD_KAD_HPP
