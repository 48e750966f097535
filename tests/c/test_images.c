// Preprocessing and resizing.
#include <math.h>

#include "check.h"

static const float kMean[3] = {0.5F, 0.25F, 0.125F};
static const float kStd[3] = {0.5F, 0.25F, 2.0F};

static uint8_t pixels[40 * 50 * 4];

static kad_image make_image(int32_t format, int32_t height, int32_t width, int32_t pixel_bytes) {
  for (size_t i = 0; i < sizeof(pixels); ++i) pixels[i] = (uint8_t)(i * 7 + i / 50);
  kad_image image = {.struct_size = sizeof(kad_image),
                     .pixel_format = format,
                     .height = height,
                     .width = width,
                     .row_stride = (int64_t)width * pixel_bytes,
                     .data = pixels};
  return image;
}

static void test_preprocess_at(int32_t tile) {
  const kad_image image = make_image(KAD_PIXEL_BGR8, 40, 50, 3);
  const int32_t xy[4] = {0, 0, 50 - tile, 40 - tile};
  const size_t plane = (size_t)tile * (size_t)tile;
  const banded out = banded_new(2 * 3 * plane * sizeof(float));
  CHECK_OK(kad_preprocess(&image, xy, 2, tile, kMean, kStd, 2, banded_data(out)));
  const float* got = banded_data(out);
  for (size_t t = 0; t < 2; ++t) {
    for (size_t c = 0; c < 3; ++c) {
      for (size_t i = 0; i < plane; ++i) {
        const size_t x = (size_t)xy[2 * t] + i % (size_t)tile;
        const size_t y = (size_t)xy[2 * t + 1] + i / (size_t)tile;
        const float value = pixels[(y * 50 + x) * 3 + 2 - c];
        CHECK(got[(3 * t + c) * plane + i] == (value / 255.0F - kMean[c]) / kStd[c]);
      }
    }
  }
  banded_check_and_free(out);
}

static void test_resize(void) {
  const kad_image image = make_image(KAD_PIXEL_GREY8, 40, 50, 1);
  const banded same = banded_new(40 * 50 * 3);
  CHECK_OK(kad_image_resize(&image, 40, 50, 2, banded_data(same)));
  const uint8_t* rgb = banded_data(same);
  for (size_t i = 0; i < 40 * 50; ++i) {
    CHECK(rgb[3 * i] == pixels[i] && rgb[3 * i + 1] == pixels[i] && rgb[3 * i + 2] == pixels[i]);
  }
  banded_check_and_free(same);
  const banded one = banded_new(3 * sizeof(uint16_t));
  uint16_t two[2] = {10, 21};
  kad_image small = make_image(KAD_PIXEL_GREY16, 1, 2, 2);
  small.data = two;
  CHECK_OK(kad_image_resize(&small, 1, 1, 1, banded_data(one)));
  uint16_t mean = 0;
  memcpy(&mean, banded_data(one), sizeof(mean));
  CHECK(mean == 16);  // 15.5, half up
  banded_check_and_free(one);
}

static void test_bad_images(void) {
  uint8_t out[3];
  const kad_image good = make_image(KAD_PIXEL_RGB8, 4, 5, 3);
  kad_image bad = good;
  CHECK_INVALID(kad_image_resize(NULL, 1, 1, 1, out), "image is NULL");
  bad.struct_size = sizeof(kad_image) - 1;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "struct_size");
  bad.struct_size = sizeof(kad_image) + 8;  // a newer caller
  CHECK_OK(kad_image_resize(&bad, 1, 1, 1, out));
  bad = good;
  bad.data = NULL;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "image.data is NULL");
  bad = good;
  bad.height = 0;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "got 0 x 5");
  for (int32_t format = -1; format <= 8; format += 9) {
    bad = good;
    bad.pixel_format = format;
    CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "pixel_format");
  }
  bad = good;
  bad.row_stride = 14;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "expected at least 15");
  bad.row_stride = -15;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "is -15 bytes");
  bad.row_stride = INT64_MAX / 2;
  CHECK_INVALID(kad_image_resize(&bad, 1, 1, 1, out), "overflows");
  CHECK_INVALID(kad_image_resize(&good, 0, 1, 1, out), "got 0 x 1");
  CHECK_INVALID(kad_image_resize(&good, INT32_MAX, INT32_MAX, 1, out), "cannot exist");
  CHECK_INVALID(kad_image_resize(&good, 1, 1, 0, out), "n_threads");
  CHECK_INVALID(kad_image_resize(&good, 1, 1, 1, NULL), "out is NULL");
}

static void test_bad_preprocess(void) {
  const kad_image image = make_image(KAD_PIXEL_RGB8, 8, 9, 3);
  const int32_t xy[2] = {0, 0};
  const int32_t outside[2] = {6, 0};
  const float zero[3] = {1.0F, 1.0F, 0.0F};
  const float nan[3] = {0.0F, NAN, 0.0F};
  float out[3 * 4 * 4];
  CHECK_INVALID(kad_preprocess(&image, NULL, 1, 4, kMean, kStd, 1, out), "xy is NULL");
  CHECK_INVALID(kad_preprocess(&image, xy, 1, 4, NULL, kStd, 1, out), "mean is NULL");
  CHECK_INVALID(kad_preprocess(&image, xy, 1, 4, kMean, NULL, 1, out), "std is NULL");
  CHECK_INVALID(kad_preprocess(&image, xy, 1, 4, kMean, kStd, 1, NULL), "out is NULL");
  CHECK_INVALID(kad_preprocess(&image, xy, -1, 4, kMean, kStd, 1, out), "n_tiles");
  CHECK_INVALID(kad_preprocess(&image, xy, INT64_MAX, 4, kMean, kStd, 1, out), "cannot exist");
  CHECK_INVALID(kad_preprocess(&image, outside, 1, 4, kMean, kStd, 1, out), "tile 0 at x 6");
  CHECK_INVALID(kad_preprocess(&image, xy, 1, 4, kMean, zero, 1, out), "std[2]");
  CHECK_FAILS(kad_preprocess(&image, xy, 1, 4, nan, kStd, 1, out), KAD_ERROR_NOT_FINITE, "mean[1]");
  CHECK_FAILS(kad_preprocess(&image, xy, 1, 10, kMean, kStd, 1, out), KAD_ERROR_TOO_SMALL, "8 x 9");
  CHECK_OK(kad_preprocess(&image, NULL, 0, 4, kMean, kStd, 1, NULL));
}

int main(void) {
  for (int32_t tile = 1; tile <= 40; ++tile) test_preprocess_at(tile);
  test_resize();
  test_bad_images();
  test_bad_preprocess();
  return check_result();
}
