// From a caller's image to the frame that tiles are cut from, and to its tiles.
#pragma once

#include <cstdint>
#include <vector>

#include "kad/detector.h"
#include "runtime/manifest.hpp"

namespace kad {

/// Size in which an image of `size` is scored.
Size frame_size(Size size, const PreprocessingSettings& settings);

/// The caller's denoising.
struct Denoiser {
  kad_denoise_fn function = nullptr;
  void* context = nullptr;
};

/// The image that tiles are cut from: the given one, or one over `memory`, resized and denoised.
kad_image prepare_image(const kad_image& image, const PreprocessingSettings& settings,
                        const Denoiser& denoiser, int32_t n_threads, std::vector<uint8_t>* memory);

/// Active areas and label stickers.
struct Annotation {
  std::vector<kad_rect> borders;
  std::vector<kad_rect> labels;
};

/// The request's rectangles, checked against the image; raises KAD_ERROR_ANNOTATION.
Annotation read_annotation(const kad_score_request& request, Size image);

/// The same for the board at another size. Labels grow and borders shrink to whole pixels, so that
/// no tile touches what it must not. Raises KAD_ERROR_ANNOTATION where a border vanishes.
Annotation resize_annotation(const Annotation& annotation, Size from, Size to);

/// A rectangle of an image for the same image at another size, grown or shrunk to whole px.
kad_rect scale_rect(const kad_rect& rect, Size from, Size to, bool grow);

/// Corners (n, 2) of the tiles of a frame, into *xy. Raises KAD_ERROR_TOO_SMALL, and
/// KAD_ERROR_ANNOTATION where no tile is left.
void plan_tiles(Size frame, const PreprocessingSettings& settings, const Annotation& annotation,
                std::vector<int32_t>* xy);

}  // namespace kad
