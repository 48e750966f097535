#include "coreset/flush.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "base/rounding.hpp"
#include "search/index.hpp"

namespace kad {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Decide the pairs of one point with the centres of one panel that `mask`, not 0, names.
int64_t decide(const SearchKernels& kernels, const Centres& centres, int64_t panel, uint64_t mask,
               const PointBlock& block, int64_t point, int64_t dims) {
  const float* queries[kMaxPanelRows];
  const float* rows[kMaxPanelRows];
  float found[kMaxPanelRows];
  int64_t n = 0;
  do {
    queries[n] = block.rows + point * dims;
    rows[n++] = centres.row(panel * kernels.panel_rows + __builtin_ctzll(mask));
    mask &= mask - 1;
  } while (mask != 0);
  kernels.distances(queries, rows, n, dims, found);
  block.dist[point] = std::min(block.dist[point], *std::min_element(found, found + n));
  return n;
}

// A measured pair costs about as much as three screened ones, a sketch as many as it has
// directions.
bool sketching_costs_more(const SketchSpace& space, int64_t n_centres) {
  return 3 * n_centres <= space.width();
}

int64_t decide_all(const SketchSpace& space, const SearchKernels& kernels, const Centres& centres,
                   const float* points, int64_t n, float* dist) {
  int64_t decided = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (dist[i] <= 0.0F) continue;
    const PointBlock point = {points + i * space.dims(), 1, nullptr, nullptr, dist + i, nullptr};
    for (int64_t p = 0; p < centres.panels(); ++p) {
      decided += decide(kernels, centres, p, centres.present(p), point, 0, space.dims());
    }
  }
  return decided;
}

// What one thread needs to flush blocks of points that it sketches itself.
struct FlushScratch {
  std::vector<float> rows, sketches, terms;
  std::vector<double> half_norms;
};

int64_t flush_block(const SketchSpace& space, const SearchKernels& kernels, const Centres& centres,
                    const float* points, int64_t n, float* dist, FlushScratch& scratch) {
  if (sketching_costs_more(space, centres.n())) {
    return decide_all(space, kernels, centres, points, n, dist);
  }
  scratch.sketches.resize(static_cast<size_t>(packed_floats(space, kernels, n)));
  scratch.half_norms.resize(static_cast<size_t>(n));
  scratch.terms.assign(static_cast<size_t>(round_up(n, kernels.tile_queries)), kInfinity);
  pack_sketches(space, kernels, points, n, scratch.rows, scratch.sketches.data(),
                scratch.half_norms.data());
  for (int64_t i = 0; i < n; ++i) {
    scratch.terms[static_cast<size_t>(i)] =
        space.point_term(scratch.half_norms[static_cast<size_t>(i)], dist[i]);
  }
  return lower_distances(
      space, kernels, centres,
      {points, n, scratch.sketches.data(), scratch.half_norms.data(), dist, scratch.terms.data()});
}

int64_t flush(const SketchSpace& space, const float* points, int64_t n, const float* rows,
              int64_t n_centres, int32_t n_threads, float* dist) {
  const SearchKernels& kernels = search_kernels(current_level());
  const Centres centres(space, kernels, rows, n_centres);
  const int64_t n_blocks = (n + kBlockPoints - 1) / kBlockPoints;
  std::vector<FlushScratch> scratch(static_cast<size_t>(worker_count(n_blocks, n_threads)));
  std::atomic<int64_t> decided{0};
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t worker) {
    const int64_t first = block * kBlockPoints;
    decided += flush_block(space, kernels, centres, points + first * space.dims(),
                           std::min(kBlockPoints, n - first), dist + first,
                           scratch[static_cast<size_t>(worker)]);
  });
  return decided;
}

}  // namespace

Centres::Centres(const SketchSpace& space, const SearchKernels& kernels, const float* rows,
                 int64_t n)
    : rows_(rows),
      n_(n),
      dims_(space.dims()),
      width_(space.width()),
      panel_rows_(kernels.panel_rows) {
  std::vector<float> sketches(static_cast<size_t>(n * width_));
  std::vector<double> half_norms(static_cast<size_t>(n));
  space.apply(kernels, rows, n, sketches.data(), half_norms.data());
  sketches_.resize(static_cast<size_t>(panels() * panel_rows_ * width_));
  terms_.assign(static_cast<size_t>(panels() * panel_rows_), kInfinity);
  for (int64_t p = 0; p < panels(); ++p) {
    const int64_t first = p * panel_rows_;
    kernels.pack(sketches.data() + first * width_, width_, std::min(panel_rows_, n - first),
                 panel_rows_, width_, nullptr, sketches_.data() + first * width_);
  }
  for (int64_t i = 0; i < n; ++i) {
    terms_[static_cast<size_t>(i)] = SketchSpace::centre_term(half_norms[static_cast<size_t>(i)]);
  }
}

void check_finite_rows(const float* rows, int64_t n, int64_t dims, int32_t n_threads,
                       const char* name) {
  const int64_t n_blocks = (n + kBlockPoints - 1) / kBlockPoints;
  std::atomic<int64_t> bad{n};
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    for (int64_t i = block * kBlockPoints; i < std::min(n, (block + 1) * kBlockPoints); ++i) {
      if (!has_non_finite(rows + i * dims, dims)) continue;
      int64_t first = bad;
      while (i < first && !bad.compare_exchange_weak(first, i)) {
      }
      return;
    }
  });
  if (bad < n) {
    fail(KAD_ERROR_NOT_FINITE, "%s %lld holds NaN or Inf: every value must be finite", name,
         static_cast<long long>(bad.load()));
  }
}

void check_distances(const float* dist, int64_t n) {
  const float* bad = std::find_if(dist, dist + n, [](float x) { return std::isnan(x); });
  if (bad == dist + n) return;
  fail(KAD_ERROR_NOT_FINITE,
       "dist[%lld] is NaN: expected a distance, infinite where there is no centre yet, or below 0 "
       "for a centre",
       static_cast<long long>(bad - dist));
}

int64_t packed_floats(const SketchSpace& space, const SearchKernels& kernels, int64_t n) {
  return round_up(n, kernels.tile_queries) * space.width();
}

void pack_sketches(const SketchSpace& space, const SearchKernels& kernels, const float* rows,
                   int64_t n, std::vector<float>& scratch, float* sketches, double* half_norms) {
  const int64_t step = kernels.tile_queries, width = space.width();
  scratch.resize(static_cast<size_t>(n * width));
  space.apply(kernels, rows, n, scratch.data(), half_norms);
  for (int64_t i = 0; i < n; i += step) {
    kernels.pack(scratch.data() + i * width, width, std::min(step, n - i), step, width, nullptr,
                 sketches + i * width);
  }
}

int64_t lower_distances(const SketchSpace& space, const SearchKernels& kernels,
                        const Centres& centres, const PointBlock& block) {
  const int64_t step = kernels.tile_queries, width = space.width();
  uint64_t masks[kMaxTileQueries];
  int64_t decided = 0;
  for (int64_t p = 0; p < centres.panels(); ++p) {
    const uint64_t present = centres.present(p);
    for (int64_t first = 0; first < block.n; first += step) {
      kernels.screen(block.sketches + first * width, centres.panel(p), width, centres.terms(p),
                     block.terms + first, masks);
      for (int64_t i = first; i < std::min(first + step, block.n); ++i) {
        const uint64_t mask = masks[i - first] & present;
        if (mask == 0) continue;
        const float before = block.dist[i];
        decided += decide(kernels, centres, p, mask, block, i, space.dims());
        if (block.dist[i] < before) {
          block.terms[i] = space.point_term(block.half_norms[i], block.dist[i]);
        }
      }
    }
  }
  return decided;
}

}  // namespace kad

extern "C" kad_status kad_kcenter_flush(const kad_directions* directions, const float* points,
                                        int64_t n, const float* centres, int64_t n_centres,
                                        int32_t n_threads, float* dist, int64_t* out_decided) {
  return kad::guard([&] {
    const kad::SketchSpace space(directions);
    kad::check_threads(n_threads);
    kad::check_count(n, space.dims(), "n");
    kad::check_count(n_centres, space.dims(), "n_centres");
    if (out_decided != nullptr) *out_decided = 0;
    if (n == 0 || n_centres == 0) return;
    kad::check_pointer(points, "points");
    kad::check_pointer(centres, "centres");
    kad::check_pointer(dist, "dist");
    kad::check_finite_rows(points, n, space.dims(), n_threads, "point");
    kad::check_finite_rows(centres, n_centres, space.dims(), 1, "centre");
    kad::check_distances(dist, n);
    const int64_t decided = kad::flush(space, points, n, centres, n_centres, n_threads, dist);
    if (out_decided != nullptr) *out_decided = decided;
  });
}
