// Antialiased resize: a triangle filter whose support grows with the reduction, each axis on its
// own, vertical first. Sums are float32 in rising order of the source pixel.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

// The source pixels of each output pixel of one axis, and their weights.
struct Filter {
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<int64_t> offset;  // into weights
  std::vector<float> weights;
};

// Output pixel i lies at (i + 0.5) * scale; source pixel j counts with max(0, 1 - |distance|),
// the distance in units of the scale (or of a pixel, when enlarging), normalised to sum 1.
Filter triangle_filter(int32_t in_length, int32_t out_length) {
  Filter filter;
  const double scale = static_cast<double>(in_length) / out_length;
  const double support = std::max(scale, 1.0);
  std::vector<double> taps;
  for (int32_t i = 0; i < out_length; ++i) {
    const double center = (i + 0.5) * scale;
    const auto first = static_cast<int32_t>(std::max(center - support + 0.5, 0.0));
    const auto end =
        static_cast<int32_t>(std::min(center + support + 0.5, static_cast<double>(in_length)));
    taps.clear();
    double sum = 0.0;
    for (int32_t j = first; j < end; ++j) {
      const double distance = (j + 0.5 - center) / support;
      taps.push_back(std::max(0.0, 1.0 - (distance < 0.0 ? -distance : distance)));
      sum += taps.back();
    }
    filter.first.push_back(first);
    filter.count.push_back(end - first);
    filter.offset.push_back(static_cast<int64_t>(filter.weights.size()));
    for (const double tap : taps) filter.weights.push_back(static_cast<float>(tap / sum));
  }
  return filter;
}

template <class Value>
void add_weighted_row(const uint8_t* pixels, int64_t n, float weight, float* sum) {
  for (int64_t i = 0; i < n; ++i) {
    Value value = 0;
    std::memcpy(&value, pixels + i * static_cast<int64_t>(sizeof(Value)), sizeof(Value));
    sum[i] += weight * static_cast<float>(value);
  }
}

// One output row before the horizontal pass: (width * samples,) float32.
template <class Value>
void vertical_pass(const ImageView& image, const Filter& rows, int32_t y, float* line) {
  const int64_t n = int64_t{image.width} * image.samples;
  std::fill(line, line + n, 0.0F);
  for (int32_t tap = 0; tap < rows.count[static_cast<size_t>(y)]; ++tap) {
    const int64_t source = int64_t{rows.first[static_cast<size_t>(y)]} + tap;
    const float weight =
        rows.weights[static_cast<size_t>(rows.offset[static_cast<size_t>(y)] + tap)];
    add_weighted_row<Value>(image.row(source), n, weight, line);
  }
}

template <class Value>
Value rounded(float value, float full_scale) {
  return static_cast<Value>(std::clamp(value + 0.5F, 0.0F, full_scale));
}

template <class Value>
void horizontal_pass(const ImageView& image, const Filter& columns, const float* line, Value* out) {
  for (size_t x = 0; x < columns.first.size(); ++x) {
    const float* weights = columns.weights.data() + columns.offset[x];
    const float* pixels = line + int64_t{columns.first[x]} * image.samples;
    float sum[3] = {0.0F, 0.0F, 0.0F};
    for (int32_t tap = 0; tap < columns.count[x]; ++tap) {
      const float* pixel = pixels + int64_t{tap} * image.samples;
      for (int c = 0; c < 3; ++c) sum[c] += weights[tap] * pixel[image.rgb[c]];
    }
    for (size_t c = 0; c < 3; ++c) out[3 * x + c] = rounded<Value>(sum[c], image.full_scale());
  }
}

template <class Value>
void resize_as(const ImageView& image, int32_t out_height, int32_t out_width, int32_t n_threads,
               Value* out) {
  const Filter rows = triangle_filter(image.height, out_height);
  const Filter columns = triangle_filter(image.width, out_width);
  const auto n_workers = static_cast<size_t>(worker_count(out_height, n_threads));
  const auto line_values = static_cast<size_t>(image.width) * static_cast<size_t>(image.samples);
  std::vector<std::vector<float>> lines(n_workers, std::vector<float>(line_values));
  parallel_for(out_height, n_threads, [&](int64_t y, int32_t worker) {
    float* line = lines[static_cast<size_t>(worker)].data();
    vertical_pass<Value>(image, rows, static_cast<int32_t>(y), line);
    horizontal_pass(image, columns, line, out + y * out_width * 3);
  });
}

void resize(const kad_image* image, int32_t out_height, int32_t out_width, int32_t n_threads,
            void* out) {
  const ImageView view = check_image(image);
  check_image_size(out_height, out_width);
  check_threads(n_threads);
  check_count(out_height, 3 * int64_t{out_width}, "out_height");
  check_pointer(out, "out");
  if (view.bytes_per_value == 1) {
    resize_as(view, out_height, out_width, n_threads, static_cast<uint8_t*>(out));
  } else {
    resize_as(view, out_height, out_width, n_threads, static_cast<uint16_t*>(out));
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_image_resize(const kad_image* image, int32_t out_height,
                                       int32_t out_width, int32_t n_threads, void* out) {
  return kad::guard([&] { kad::resize(image, out_height, out_width, n_threads, out); });
}
