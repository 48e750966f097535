// A network in C for the tests: every output is a smooth function of the tile, so that scores mean
// something, and equal for equal tiles.
#ifndef KAD_TESTS_TOY_NETWORK_H
#define KAD_TESTS_TOY_NETWORK_H

#include "kad/detector.h"

// Means of the tile over a grid, channel c of the output from channel c mod 3 of the tile.
static inline void toy_output(const kad_network_output* output, const float* tile, int64_t side,
                              float* out) {
  for (int64_t c = 0; c < output->channels; ++c) {
    const float* plane = tile + (c % 3) * side * side;
    for (int64_t y = 0; y < output->height; ++y) {
      for (int64_t x = 0; x < output->width; ++x) {
        const int64_t top = y * side / output->height, bottom = (y + 1) * side / output->height;
        const int64_t left = x * side / output->width, right = (x + 1) * side / output->width;
        float sum = 0.0F;
        for (int64_t i = top; i < bottom; ++i) {
          for (int64_t j = left; j < right; ++j) sum += plane[i * side + j];
        }
        const float mean = sum / (float)((bottom - top) * (right - left));
        *out++ = (mean < 0 ? -mean : mean) / (float)(1 + c);
      }
    }
  }
}

static inline kad_status toy_network(void* context, const kad_network_batch* batch) {
  (void)context;
  for (int64_t i = 0; i < batch->n_outputs; ++i) {
    const kad_network_output* output = batch->outputs + i;
    const int64_t values = output->channels * output->height * output->width;
    for (int64_t t = 0; t < batch->n_tiles; ++t) {
      const int64_t side = batch->tile;
      toy_output(output, batch->tiles + t * 3 * side * side, side, output->data + t * values);
    }
  }
  return KAD_OK;
}

// Options that score with the toy network.
static inline kad_detector_options toy_options(void) {
  const kad_detector_options options = {.struct_size = sizeof(options),
                                        .provider = KAD_PROVIDER_CALLER,
                                        .n_threads = 1,
                                        .batch = 4,
                                        .network = toy_network};
  return options;
}

// A bright image with faint texture and, where `defect` is set, a dark square.
static inline void paint_board(uint8_t* rgb, int height, int width, unsigned seed, int defect) {
  unsigned state = seed * 2654435761u + 1;
  for (int i = 0; i < height * width * 3; ++i) {
    state = state * 1664525u + 1013904223u;
    rgb[i] = (uint8_t)(190 + (state >> 24) % 16);
  }
  for (int y = height / 3; defect && y < height / 3 + 12; ++y) {
    for (int x = width / 2; x < width / 2 + 12; ++x) {
      for (int c = 0; c < 3; ++c) rgb[(y * width + x) * 3 + c] = 15;
    }
  }
}

static inline kad_image rgb_image(const uint8_t* rgb, int height, int width) {
  const kad_image image = {.struct_size = sizeof(image),
                           .pixel_format = KAD_PIXEL_RGB8,
                           .height = height,
                           .width = width,
                           .row_stride = 3 * (int64_t)width,
                           .data = rgb};
  return image;
}

#endif
