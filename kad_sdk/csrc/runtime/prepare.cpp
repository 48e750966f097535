#include "runtime/prepare.hpp"

#include <algorithm>
#include <cmath>

#include "image/image.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

int32_t scaled_side(int32_t side, double factor) {
  // To nearest, halves to even, as Python rounds; the guard has set that rounding mode.
  const double length = std::nearbyint(side * factor);
  return static_cast<int32_t>(std::clamp(length, 1.0, double{INT32_MAX}));
}

bool is_8_bit(const kad_image& image) { return check_image(&image).bytes_per_value == 1; }

void denoise(const DenoiseSettings& settings, const Denoiser& denoiser, Size size, uint8_t* rgb) {
  kad_denoise_frame frame = {};
  frame.struct_size = sizeof(frame);
  frame.height = size.height;
  frame.width = size.width;
  frame.template_window = settings.template_window;
  frame.search_window = settings.search_window;
  frame.h = settings.h;
  frame.h_color = settings.h_color;
  frame.rgb = rgb;
  const kad_status status = denoiser.function(denoiser.context, &frame);
  if (status == KAD_ERROR_CANCELLED) fail(status, "the caller's denoising cancelled the call");
  if (status != KAD_OK) {
    fail(KAD_ERROR_UNSUPPORTED, "the caller's denoising returned %d (%s)", status,
         kad_status_name(status));
  }
}

void check_rectangles(const kad_rect* rectangles, int64_t n, const char* name, Size image,
                      std::vector<kad_rect>* out) {
  check_count(n, 2, name);
  if (n > 0) check_pointer(rectangles, name);
  for (int64_t i = 0; i < n; ++i) {
    const kad_rect& r = rectangles[i];
    if (!lies_inside(r, image.height, image.width)) {
      fail(KAD_ERROR_ANNOTATION,
           "%s[%lld] = [%d, %d, %d, %d] (x, y, width, height) is empty or reaches outside the "
           "image of %d x %d px (width x height); measure it on this image at its full size",
           name, static_cast<long long>(i), r.x, r.y, r.width, r.height, image.width, image.height);
    }
  }
  out->assign(rectangles, rectangles + n);
}

struct Span {
  int32_t start;
  int32_t end;
};

// In integers, so that the result does not hang on rounding.
Span scaled(int32_t start, int32_t length, int64_t to, int64_t of, bool grow) {
  const int64_t first = start * to;
  const int64_t last = (int64_t{start} + length) * to;
  const int64_t begin = grow ? first / of : (first + of - 1) / of;
  const int64_t end = grow ? (last + of - 1) / of : last / of;
  return {static_cast<int32_t>(begin), static_cast<int32_t>(end)};
}

}  // namespace

kad_rect scale_rect(const kad_rect& rect, Size from, Size to, bool grow) {
  const Span x = scaled(rect.x, rect.width, to.width, from.width, grow);
  const Span y = scaled(rect.y, rect.height, to.height, from.height, grow);
  return {x.start, y.start, x.end - x.start, y.end - y.start};
}

Size frame_size(Size size, const PreprocessingSettings& settings) {
  switch (settings.resize) {
    case Resize::none:
      return size;
    case Resize::size:
      return settings.resize_size;
    case Resize::factor:
      break;
  }
  const Size frame = {scaled_side(size.height, settings.resize_factor),
                      scaled_side(size.width, settings.resize_factor)};
  if (int64_t{frame.height} * frame.width > kMaxFramePixels) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "the image of %d x %d px (height x width) becomes %d x %d px by the artifact's factor %g: "
         "expected at most %lld px in all; score it in parts, or export with a smaller --resize",
         size.height, size.width, frame.height, frame.width, settings.resize_factor,
         static_cast<long long>(kMaxFramePixels));
  }
  return frame;
}

kad_image prepare_image(const kad_image& image, const PreprocessingSettings& settings,
                        const Denoiser& denoiser, int32_t n_threads, std::vector<uint8_t>* memory) {
  const Size frame = frame_size({image.height, image.width}, settings);
  const bool resizes = frame.height != image.height || frame.width != image.width;
  if (!resizes && !settings.denoise) return image;
  const bool bytes = is_8_bit(image);
  if (settings.denoise && !bytes) {
    fail(KAD_ERROR_UNSUPPORTED,
         "denoising works on 8-bit images, got KAD_PIXEL_* %d; give 8-bit images, or export the "
         "artifact without --denoise",
         image.pixel_format);
  }
  kad_image prepared = {};
  prepared.struct_size = sizeof(prepared);
  prepared.pixel_format = bytes ? KAD_PIXEL_RGB8 : KAD_PIXEL_RGB16;
  prepared.height = frame.height;
  prepared.width = frame.width;
  prepared.row_stride = int64_t{frame.width} * (bytes ? 3 : 6);
  check_count(frame.height, prepared.row_stride, "frame height");
  memory->resize(static_cast<size_t>(frame.height * prepared.row_stride));
  // At its own size this is an exact copy as RGB, whatever the pixel format.
  check_stage(kad_image_resize(&image, frame.height, frame.width, n_threads, memory->data()));
  if (settings.denoise) denoise(*settings.denoise, denoiser, frame, memory->data());
  prepared.data = memory->data();
  return prepared;
}

Annotation read_annotation(const kad_score_request& request, Size image) {
  Annotation annotation;
  check_rectangles(request.borders, request.n_borders, "borders", image, &annotation.borders);
  check_rectangles(request.labels, request.n_labels, "labels", image, &annotation.labels);
  return annotation;
}

Annotation resize_annotation(const Annotation& annotation, Size from, Size to) {
  Annotation resized;
  for (size_t i = 0; i < annotation.borders.size(); ++i) {
    const kad_rect rect = scale_rect(annotation.borders[i], from, to, false);
    if (rect.width < 1 || rect.height < 1) {
      fail(KAD_ERROR_ANNOTATION,
           "borders[%zu] vanishes when the image of %d x %d px is resized to %d x %d px (width x "
           "height); give a larger area, or export with a larger --resize",
           i, from.width, from.height, to.width, to.height);
    }
    resized.borders.push_back(rect);
  }
  for (const kad_rect& label : annotation.labels) {
    resized.labels.push_back(scale_rect(label, from, to, true));
  }
  return resized;
}

void plan_tiles(Size frame, const PreprocessingSettings& settings, const Annotation& annotation,
                std::vector<int32_t>* xy) {
  kad_tile_grid grid = {};
  grid.struct_size = sizeof(grid);
  grid.image_height = frame.height;
  grid.image_width = frame.width;
  grid.tile = settings.tile;
  grid.stride = settings.stride;
  grid.cover_edges = 1;
  grid.borders = annotation.borders.data();
  grid.n_borders = static_cast<int64_t>(annotation.borders.size());
  grid.labels = annotation.labels.data();
  grid.n_labels = static_cast<int64_t>(annotation.labels.size());
  int64_t n = 0;
  kad_status status = kad_tiles_plan(&grid, xy->data(), static_cast<int64_t>(xy->size() / 2), &n);
  if (status == KAD_ERROR_BUFFER_TOO_SMALL) {
    xy->resize(static_cast<size_t>(2 * n));
    status = kad_tiles_plan(&grid, xy->data(), n, &n);
  }
  if (status == KAD_ERROR_TOO_SMALL) {
    fail(status,
         "%s; give the whole board, or export an artifact with a smaller tile or with a size that "
         "boards are brought to (--tile, --resize)",
         kad_last_error());
  }
  check_stage(status);
  xy->resize(static_cast<size_t>(2 * n));
  if (n == 0) {
    fail(KAD_ERROR_ANNOTATION,
         "the %lld labels touch every tile: nothing is left to score; check that they are "
         "rectangles (x, y, width, height) of stickers",
         static_cast<long long>(grid.n_labels));
  }
}

}  // namespace kad
