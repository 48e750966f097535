// The layout of the ABI: sizes, offsets and values, compared with the snapshot that is named as the
// argument. When a change is meant, replace the snapshot with what this prints.
#include <stddef.h>

#include "check.h"

static char text[1 << 14];
static size_t used = 0;

static void line(const char* name, size_t offset, size_t size) {
  used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %zu %zu\n", name, offset, size);
}

static void value(const char* name, long number) {
  used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %ld\n", name, number);
}

#define STRUCT(type) line(#type, 0, sizeof(type))
#define FIELD(type, field) line(#type "." #field, offsetof(type, field), sizeof(((type*)0)->field))
#define VALUE(name) value(#name, (long)(name))

static void structs(void) {
  STRUCT(kad_image);
  FIELD(kad_image, struct_size);
  FIELD(kad_image, pixel_format);
  FIELD(kad_image, height);
  FIELD(kad_image, width);
  FIELD(kad_image, row_stride);
  FIELD(kad_image, data);
  STRUCT(kad_rect);
  FIELD(kad_rect, x);
  FIELD(kad_rect, y);
  FIELD(kad_rect, width);
  FIELD(kad_rect, height);
  STRUCT(kad_tile_grid);
  FIELD(kad_tile_grid, struct_size);
  FIELD(kad_tile_grid, image_height);
  FIELD(kad_tile_grid, image_width);
  FIELD(kad_tile_grid, tile);
  FIELD(kad_tile_grid, stride);
  FIELD(kad_tile_grid, cover_edges);
  FIELD(kad_tile_grid, borders);
  FIELD(kad_tile_grid, n_borders);
  FIELD(kad_tile_grid, labels);
  FIELD(kad_tile_grid, n_labels);
  STRUCT(kad_base_maps);
  FIELD(kad_base_maps, struct_size);
  FIELD(kad_base_maps, resampling);
  FIELD(kad_base_maps, grid_height);
  FIELD(kad_base_maps, grid_width);
  FIELD(kad_base_maps, n_tiles);
  FIELD(kad_base_maps, n_layers);
  FIELD(kad_base_maps, data);
  FIELD(kad_base_maps, channels);
  FIELD(kad_base_maps, heights);
  FIELD(kad_base_maps, widths);
  STRUCT(kad_index_facts);
  FIELD(kad_index_facts, struct_size);
  FIELD(kad_index_facts, reserved);
  FIELD(kad_index_facts, rows);
  FIELD(kad_index_facts, dims);
  FIELD(kad_index_facts, narrow_dims);
  FIELD(kad_index_facts, wide_dims);
  FIELD(kad_index_facts, bytes);
  STRUCT(kad_search_stats);
  FIELD(kad_search_stats, struct_size);
  FIELD(kad_search_stats, reserved);
  FIELD(kad_search_stats, queries);
  FIELD(kad_search_stats, dense_queries);
  FIELD(kad_search_stats, narrow_pairs);
  FIELD(kad_search_stats, narrow_products);
  FIELD(kad_search_stats, wide_pairs);
  FIELD(kad_search_stats, decided_pairs);
  FIELD(kad_search_stats, dense_pairs);
  FIELD(kad_search_stats, dense_decided_pairs);
  FIELD(kad_search_stats, prepare_ns);
  FIELD(kad_search_stats, narrow_ns);
  FIELD(kad_search_stats, wide_ns);
  FIELD(kad_search_stats, decide_ns);
  FIELD(kad_search_stats, dense_ns);
  STRUCT(kad_score_options);
  FIELD(kad_score_options, struct_size);
  FIELD(kad_score_options, reweighting);
  FIELD(kad_score_options, neighbors);
  FIELD(kad_score_options, neighbor_columns);
  FIELD(kad_score_options, n_neighbors);
  STRUCT(kad_density);
  FIELD(kad_density, struct_size);
  FIELD(kad_density, kind);
  FIELD(kad_density, dims);
  FIELD(kad_density, mean);
  FIELD(kad_density, cholesky);
  FIELD(kad_density, samples);
  FIELD(kad_density, n_samples);
  FIELD(kad_density, bandwidth);
  STRUCT(kad_board_options);
  FIELD(kad_board_options, struct_size);
  FIELD(kad_board_options, image_height);
  FIELD(kad_board_options, image_width);
  FIELD(kad_board_options, tile);
  FIELD(kad_board_options, grid_height);
  FIELD(kad_board_options, grid_width);
  FIELD(kad_board_options, smoothing_radius);
  FIELD(kad_board_options, smoothing_sigma);
  STRUCT(kad_region);
  FIELD(kad_region, x);
  FIELD(kad_region, y);
  FIELD(kad_region, width);
  FIELD(kad_region, height);
  FIELD(kad_region, peak_x);
  FIELD(kad_region, peak_y);
  FIELD(kad_region, peak);
  FIELD(kad_region, distance);
  FIELD(kad_region, area_px);
  FIELD(kad_region, tile);
  FIELD(kad_region, patch);
  FIELD(kad_region, bank_row);
}

static void values(void) {
  VALUE(KAD_ABI_VERSION);
  VALUE(KAD_OK);
  VALUE(KAD_ERROR_INVALID_ARGUMENT);
  VALUE(KAD_ERROR_NOT_FINITE);
  VALUE(KAD_ERROR_OUT_OF_MEMORY);
  VALUE(KAD_ERROR_UNSUPPORTED);
  VALUE(KAD_ERROR_BUFFER_TOO_SMALL);
  VALUE(KAD_ERROR_TOO_SMALL);
  VALUE(KAD_ERROR_INTERNAL);
  VALUE(KAD_ERROR_ARTIFACT_NOT_FOUND);
  VALUE(KAD_ERROR_ARTIFACT_VERSION);
  VALUE(KAD_ERROR_ARTIFACT_MANIFEST);
  VALUE(KAD_ERROR_ARTIFACT_LISTING);
  VALUE(KAD_ERROR_ARTIFACT_SIZE);
  VALUE(KAD_ERROR_ARTIFACT_HASH);
  VALUE(KAD_ERROR_ARTIFACT_TENSORS);
  VALUE(KAD_ERROR_ARTIFACT_NETWORK);
  VALUE(KAD_ERROR_ARTIFACT_UNSUPPORTED);
  VALUE(KAD_ERROR_ONNXRUNTIME);
  VALUE(KAD_ERROR_PROVIDER);
  VALUE(KAD_ERROR_NETWORK);
  VALUE(KAD_ERROR_ANNOTATION);
  VALUE(KAD_ERROR_CANCELLED);
  VALUE(KAD_LEVEL_AUTO);
  VALUE(KAD_LEVEL_SCALAR);
  VALUE(KAD_LEVEL_AVX2);
  VALUE(KAD_LEVEL_AVX512);
  VALUE(KAD_LEVEL_AVX512VNNI);
  VALUE(KAD_PIXEL_GREY8);
  VALUE(KAD_PIXEL_RGB8);
  VALUE(KAD_PIXEL_BGR8);
  VALUE(KAD_PIXEL_RGBA8);
  VALUE(KAD_PIXEL_BGRA8);
  VALUE(KAD_PIXEL_GREY16);
  VALUE(KAD_PIXEL_RGB16);
  VALUE(KAD_PIXEL_BGR16);
  VALUE(KAD_RESAMPLE_BILINEAR);
  VALUE(KAD_RESAMPLE_ADAPTIVE_AVERAGE);
  VALUE(KAD_REWEIGHT_NONE);
  VALUE(KAD_REWEIGHT_THESIS);
  VALUE(KAD_REWEIGHT_PAPER);
  VALUE(KAD_DENSITY_GAUSSIAN);
  VALUE(KAD_DENSITY_KERNEL);
}

int main(int argc, char** argv) {
  static char expected[sizeof(text)];
  structs();
  values();
  fputs(text, stdout);
  FILE* file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  CHECK(file != NULL);
  if (file == NULL) return check_result();
  expected[fread(expected, 1, sizeof(expected) - 1, file)] = '\0';
  fclose(file);
  CHECK(strcmp(text, expected) == 0);
  return check_result();
}
