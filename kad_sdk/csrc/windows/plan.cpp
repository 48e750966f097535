// Which windows of a board the network sees, and which patches count.
#include <algorithm>
#include <limits>
#include <memory>

#include "base/guard.hpp"
#include "base/rounding.hpp"
#include "image/image.hpp"
#include "windows/windows.hpp"

namespace kad {
namespace {

void check_multiple(int32_t value, int32_t of, const char* name, const char* of_name) {
  if (value >= 1 && value % of == 0) return;
  fail(KAD_ERROR_INVALID_ARGUMENT, "%s must be a multiple of %s, %d px, above 0, got %d", name,
       of_name, of, value);
}

void check_sizes(const kad_windows_options& options) {
  check_reserved(options.reserved, "kad_windows_options");
  check_image_size(options.image_height, options.image_width);
  check_tile_side(options.tile, options.image_height, options.image_width);
  if (options.patch < 1 || options.align < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "patch and align must be at least 1 px, got %d and %d",
         options.patch, options.align);
  }
  check_multiple(options.align, options.patch, "align", "patch");
  check_multiple(options.window, options.align, "window", "align");
  check_multiple(options.tile, options.align, "tile", "align");
  if (options.halo != 0) check_multiple(options.halo, options.align, "halo", "align");
  const int64_t least = 2 * int64_t{options.label_margin} + 4 * int64_t{options.patch};
  if (options.label_margin < 0 || options.tile < least) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "label_margin must be 0 or above, and tile at least 2 * label_margin + 4 * patch px, got "
         "label_margin %d, tile %d, patch %d",
         options.label_margin, options.tile, options.patch);
  }
}

kad_windows_options checked(const kad_windows_options* given) {
  const kad_windows_options options =
      read_struct(given, KAD_FIRST_SIZE(kad_windows_options, n_tiles), "kad_windows_options");
  check_sizes(options);
  check_smoothing(options.smoothing_radius, options.smoothing_sigma);
  check_rectangles(options.borders, options.n_borders, "borders", options.image_height,
                   options.image_width);
  check_rectangles(options.labels, options.n_labels, "labels", options.image_height,
                   options.image_width);
  check_count(options.n_tiles, 2, "n_tiles");
  if (options.n_tiles > 0) check_pointer(options.xy, "xy");
  check_tiles(options.xy, options.n_tiles, options.tile, options.image_height, options.image_width);
  return options;
}

void add_area(kad_windows* board, const kad_rect& rect, int64_t number) {
  const kad_windows_options& options = board->options;
  check_border(rect, number, options.tile);
  const PatchRange p = patches_in(rect, options.patch);
  const auto axis = [&](int32_t start, int32_t length, int32_t first, int32_t end) {
    return make_cell_matrix(start, length, options.patch, first, end - first,
                            static_cast<double>(options.smoothing_sigma), options.smoothing_radius);
  };
  board->areas.push_back({rect, p, axis(rect.y, rect.height, p.first_row, p.end_row),
                          axis(rect.x, rect.width, p.first_column, p.end_column)});
  for (int32_t row = p.first_row; row < p.end_row; ++row) {
    std::fill_n(board->live.begin() + board->at(row, p.first_column), p.end_column - p.first_column,
                uint8_t{1});
  }
}

/// The part of a label with its margin that lies in a rectangle; of no size where there is none.
kad_rect label_part(const kad_rect& label, int32_t margin, const kad_rect& in) {
  const auto axis = [margin](int64_t at, int64_t length, int32_t start, int32_t side,
                             int32_t* out_at, int32_t* out_length) {
    const int64_t begin = std::max<int64_t>(at - margin, start);
    const int64_t end = std::min(at + length + margin, int64_t{start} + side);
    *out_at = static_cast<int32_t>(begin);
    *out_length = static_cast<int32_t>(std::max<int64_t>(end - begin, 0));
  };
  kad_rect part = {};
  axis(label.x, label.width, in.x, in.width, &part.x, &part.width);
  axis(label.y, label.height, in.y, in.height, &part.y, &part.height);
  return part;
}

// Those among some patches that the pixels of a rectangle belong to, as patch_at says: the nearest
// where a pixel lies in none of them.
PatchRange patches_of(const kad_rect& rect, int32_t patch, const PatchRange& among) {
  const auto cell = [patch](int32_t px, int32_t first, int32_t end) {
    return std::clamp(px / patch, first, end - 1);
  };
  const auto row = [&](int32_t y) { return cell(y, among.first_row, among.end_row); };
  const auto column = [&](int32_t x) { return cell(x, among.first_column, among.end_column); };
  return {row(rect.y), row(rect.y + rect.height - 1) + 1, column(rect.x),
          column(rect.x + rect.width - 1) + 1};
}

void mask_pixels(kad_windows* board, const kad_rect& rect, const PatchRange& among) {
  if (rect.width < 1 || rect.height < 1) return;
  const PatchRange range = patches_of(rect, board->options.patch, among);
  for (int32_t row = range.first_row; row < range.end_row; ++row) {
    for (int32_t column = range.first_column; column < range.end_column; ++column) {
      uint8_t& live = board->live[static_cast<size_t>(board->at(row, column))];
      board->masked = board->masked || live != 0;
      live = 0;
    }
  }
}

// Patches of which a pixel lies within the margin of a label count for nothing. At the edge of an
// area, where up to half a patch of it belongs to the patch beside it, these are its pixels too.
void mask_label(kad_windows* board, const kad_rect& label) {
  const kad_windows_options& options = board->options;
  const kad_rect image = {0, 0, options.image_width, options.image_height};
  mask_pixels(board, label_part(label, options.label_margin, image),
              {0, board->grid_height, 0, board->grid_width});
  for (const Area& area : board->areas) {
    mask_pixels(board, label_part(label, options.label_margin, area.rect), area.patches);
  }
}

/// A window's part of an axis, without its halo.
struct Span {
  int32_t begin;
  int32_t end;
};

/// Cells of the coarsest layer that the windows of an axis cover.
struct Cells {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
};

Cells cells_of(int32_t first_patch, int32_t end_patch, const kad_windows_options& options) {
  const int64_t align = options.align, patch = options.patch;
  return {first_patch * patch / align, divide_up(end_patch * patch, align)};
}

/// Sides of the windows of an area, in cells and without the halo.
struct Step {
  int64_t rows;
  int64_t columns;
};

// Of all ways to share an area in windows of no more px, with their halos, than a square one, that
// of the fewest px in all.
Step choose_step(const Cells& rows, const Cells& columns, const kad_windows_options& options) {
  const int64_t halo = 2 * int64_t{options.halo} / options.align;
  const int64_t side = options.window / options.align + halo;
  Step best = {1, 1};
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int64_t n = 1; n <= columns.size(); ++n) {
    const int64_t width = divide_up(columns.size(), n), most = side * side / (width + halo) - halo;
    if (most < 1) continue;
    const int64_t m = divide_up(rows.size(), most);
    const int64_t seen = (columns.size() + n * halo) * (rows.size() + m * halo);
    if (seen < least) {
      least = seen;
      best = {divide_up(rows.size(), m), width};
    }
  }
  return best;
}

// Parts begin at whole cells; the last ends at one, or where the image ends.
std::vector<Span> split_axis(const Cells& cells, int64_t step, int32_t image, int32_t align) {
  std::vector<Span> spans;
  for (int64_t at = cells.begin; at < cells.end; at += step) {
    const int64_t end = std::min(std::min(at + step, cells.end) * align, int64_t{image});
    spans.push_back({static_cast<int32_t>(at * align), static_cast<int32_t>(end)});
  }
  return spans;
}

Span with_halo(const Span& core, int32_t image, int32_t halo) {
  return {std::max(core.begin - halo, 0),
          static_cast<int32_t>(std::min<int64_t>(int64_t{core.end} + halo, image))};
}

void plan_area(kad_windows* board, const Area& area) {
  const kad_windows_options& options = board->options;
  const PatchRange& p = area.patches;
  const Cells down = cells_of(p.first_row, p.end_row, options);
  const Cells across = cells_of(p.first_column, p.end_column, options);
  const Step step = choose_step(down, across, options);
  const auto columns = split_axis(across, step.columns, options.image_width, options.align);
  for (const Span& y : split_axis(down, step.rows, options.image_height, options.align)) {
    const Span rows = with_halo(y, options.image_height, options.halo);
    for (const Span& x : columns) {
      const Span seen = with_halo(x, options.image_width, options.halo);
      board->windows.push_back({seen.begin, rows.begin, seen.end - seen.begin,
                                rows.end - rows.begin, x.begin, y.begin, x.end - x.begin,
                                y.end - y.begin});
    }
  }
}

void create(const kad_windows_options* given, kad_windows** out_windows) {
  check_pointer(out_windows, "out_windows");
  *out_windows = nullptr;
  const kad_windows_options options = checked(given);
  auto board = std::make_unique<kad_windows>();
  board->options = options;
  board->grid_height = static_cast<int32_t>(divide_up(options.image_height, options.patch));
  board->grid_width = static_cast<int32_t>(divide_up(options.image_width, options.patch));
  check_count(board->grid_height, board->grid_width, "image_height");
  const auto patches = static_cast<size_t>(board->at(board->grid_height, 0));
  board->live.assign(patches, 0);
  board->dist.assign(patches, 0.0F);
  board->rows.assign(patches, -1);
  if (options.n_borders == 0) {
    add_area(board.get(), {0, 0, options.image_width, options.image_height}, 0);
  }
  for (int64_t i = 0; i < options.n_borders; ++i) add_area(board.get(), options.borders[i], i);
  for (int64_t i = 0; i < options.n_labels; ++i) mask_label(board.get(), options.labels[i]);
  for (const Area& area : board->areas) plan_area(board.get(), area);
  board->scored.assign(board->windows.size(), 0);
  for (int64_t i = 0; i < options.n_tiles; ++i) {
    board->tiles.push_back({options.xy[2 * i], options.xy[2 * i + 1]});
  }
  board->best.resize(board->tiles.size());
  board->options.borders = board->options.labels = nullptr;
  board->options.xy = nullptr;
  *out_windows = board.release();
}

}  // namespace

PatchRange overlap(const PatchRange& a, const PatchRange& b) {
  return {std::max(a.first_row, b.first_row), std::min(a.end_row, b.end_row),
          std::max(a.first_column, b.first_column), std::min(a.end_column, b.end_column)};
}

PatchRange patches_in(const kad_rect& rect, int32_t patch) {
  // The centre of patch j is (2 j + 1) patch / 2: the first from px x on is ceil(x / patch - 1/2).
  const auto from = [&](int64_t px) {
    return static_cast<int32_t>((std::max<int64_t>(2 * px - patch, 0) + 2 * patch - 1) /
                                (2 * int64_t{patch}));
  };
  return {from(rect.y), from(int64_t{rect.y} + rect.height), from(rect.x),
          from(int64_t{rect.x} + rect.width)};
}

int64_t patch_at(const kad_windows& windows, const Area& area, int32_t x, int32_t y) {
  const PatchRange& p = area.patches;
  return windows.at(std::clamp(y / windows.options.patch, p.first_row, p.end_row - 1),
                    std::clamp(x / windows.options.patch, p.first_column, p.end_column - 1));
}

void check_all_scored(const kad_windows& windows) {
  const auto missing = std::find(windows.scored.begin(), windows.scored.end(), 0);
  if (missing == windows.scored.end()) return;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "window %lld of %zu was not searched: call kad_windows_score for each of them first",
       static_cast<long long>(missing - windows.scored.begin()), windows.scored.size());
}

}  // namespace kad

kad::PatchRange kad_windows::patches_of(const kad::TileCorner& tile) const {
  return kad::patches_in({tile.x, tile.y, options.tile, options.tile}, options.patch);
}

extern "C" {

kad_status kad_windows_create(const kad_windows_options* options, kad_windows** out_windows) {
  return kad::guard([&] { kad::create(options, out_windows); });
}

void kad_windows_close(kad_windows* windows) { delete windows; }

kad_status kad_windows_plan(const kad_windows* windows, kad_window* out, int64_t capacity,
                            int64_t* out_count) {
  return kad::guard([&] {
    kad::check_pointer(out_count, "out_count");
    *out_count = 0;
    kad::check_pointer(windows, "windows");
    kad::check_count(capacity, 4, "capacity");
    if (capacity > 0) kad::check_pointer(out, "out");
    *out_count = static_cast<int64_t>(windows->windows.size());
    kad::check_room(capacity, *out_count, "out", "windows");
    std::copy(windows->windows.begin(), windows->windows.end(), out);
  });
}

}  // extern "C"
