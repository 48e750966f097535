// Scores one raw image, and tiles of it without a board, and prints everything that the results
// hold as JSON, numbers as hexadecimal floats, so that a test can compare it bit for bit:
//   score_board ARTIFACT PIXELS FORMAT HEIGHT WIDTH STRIDE THREADS BATCH SCORES_ONLY MAP_OUT
//               [border|label|tile X Y WIDTH HEIGHT]...
// Where the artifact denoises, the variables DENOISE_FROM and DENOISE_TO name files with the frame
// that is expected and the one that comes out.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kad/detector.h"

enum { FIRST_RECTANGLE = 11, MOST_RECTANGLES = 16 };

typedef struct rectangles {
  kad_rect items[MOST_RECTANGLES];
  int64_t count;
} rectangles;

static int fail(void) {
  const char* text = kad_last_error();
  fprintf(stderr, "%s\n", text);
  return EXIT_FAILURE;
}

static void* read_file(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) abort();
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  void* data = malloc(*bytes);
  if (data == NULL || fread(data, 1, *bytes, file) != *bytes) abort();
  fclose(file);
  return data;
}

static rectangles read_rectangles(int argc, char** argv, const char* kind) {
  rectangles found = {.count = 0};
  for (int i = FIRST_RECTANGLE; i + 4 < argc; i += 5) {
    if (strcmp(argv[i], kind) != 0) continue;
    const kad_rect rect = {atoi(argv[i + 1]), atoi(argv[i + 2]), atoi(argv[i + 3]),
                           atoi(argv[i + 4])};
    found.items[found.count++] = rect;
  }
  return found;
}

static kad_status denoise(void* context, const kad_denoise_frame* frame) {
  const size_t expected = (size_t)frame->height * (size_t)frame->width * 3;
  size_t bytes[2] = {0, 0};
  uint8_t* from = read_file(getenv("DENOISE_FROM"), &bytes[0]);
  uint8_t* to = read_file(getenv("DENOISE_TO"), &bytes[1]);
  (void)context;
  const int same =
      bytes[0] == expected && bytes[1] == expected && !memcmp(from, frame->rgb, expected);
  if (same) memcpy(frame->rgb, to, expected);
  free(from);
  free(to);
  return same ? KAD_OK : KAD_ERROR_INVALID_ARGUMENT;
}

static void print_tiles(const kad_result* result, const kad_result_facts* facts) {
  printf(" \"tiles\": [");
  for (int64_t i = 0; i < facts->n_tiles; ++i) {
    kad_tile_result tile = {.struct_size = sizeof(tile)};
    if (kad_result_tile(result, i, &tile) != KAD_OK) exit(fail());
    printf("%s[%d, %d, \"%a\", \"%a\", %d, \"%a\"]", i == 0 ? "" : ", ", tile.x, tile.y,
           (double)tile.score, tile.normalised_score, tile.anomalous, tile.factor);
  }
  printf("],\n");
}

static void print_regions(const kad_result* result, const kad_result_facts* facts) {
  printf(" \"regions\": [");
  for (int64_t i = 0; i < facts->n_regions; ++i) {
    kad_region_result r = {.struct_size = sizeof(r)};
    if (kad_result_region(result, i, &r) != KAD_OK) exit(fail());
    printf("%s[%d, %d, %d, %d, %lld, \"%a\", %d, %d, \"%a\", ", i == 0 ? "" : ", ", r.x, r.y,
           r.width, r.height, (long long)r.area_px, (double)r.peak, r.peak_x, r.peak_y,
           (double)r.distance);
    if (r.nearest_image == NULL) {
      printf("null]");
    } else {
      printf("[\"%s\", %d, %d]]", r.nearest_image, r.nearest_x, r.nearest_y);
    }
  }
  printf("],\n");
}

static void print_floats(const char* name, const float* values, int64_t n) {
  printf(" \"%s\": [", name);
  for (int64_t i = 0; values != NULL && i < n; ++i) {
    printf("%s\"%a\"", i == 0 ? "" : ", ", (double)values[i]);
  }
  printf("],\n");
}

// Tiles that are cut where the caller says.
static void print_own_tiles(const kad_detector_facts* about, kad_session* session,
                            const kad_image* image, const rectangles* tiles) {
  const int64_t n = tiles->count, patches = n * about->grid_height * about->grid_width;
  const int searches = about->method == KAD_METHOD_PATCHCORE;
  int32_t xy[2 * MOST_RECTANGLES];
  float scores[MOST_RECTANGLES];
  for (int64_t i = 0; i < n; ++i) {
    xy[2 * i] = tiles->items[i].x;
    xy[2 * i + 1] = tiles->items[i].y;
  }
  float* maps = searches || about->makes_maps ? calloc((size_t)patches + 1, sizeof(*maps)) : NULL;
  int64_t* rows = searches ? calloc((size_t)patches + 1, sizeof(*rows)) : NULL;
  if (kad_session_score_tiles(session, image, xy, n, scores, maps, rows) != KAD_OK) exit(fail());
  print_floats("own_scores", scores, n);
  print_floats("own_patches", maps, patches);
  printf(" \"own_rows\": [");
  for (int64_t i = 0; searches && i < patches; ++i) {
    printf("%s%lld", i == 0 ? "" : ", ", (long long)rows[i]);
  }
  printf("],\n");
  free(maps);
  free(rows);
}

static void print_result(const kad_detector_facts* about, const kad_result* result,
                         const char* map_path) {
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  if (kad_result_info(result, &facts) != KAD_OK) exit(fail());
  printf(" \"score\": \"%a\", \"normalised_score\": \"%a\", \"anomalous\": %d,\n",
         (double)facts.score, facts.normalised_score, facts.anomalous);
  printf(" \"thresholds\": [\"%a\", \"%a\", \"%a\"],\n", facts.threshold, facts.tile_threshold,
         facts.map_threshold);
  printf(" \"image_size\": [%d, %d], \"frame_size\": [%d, %d], \"onnxruntime\": \"%s\",\n",
         facts.image_height, facts.image_width, facts.frame_height, facts.frame_width,
         about->onnxruntime);
  printf(" \"has_rules\": %d, \"precision\": \"%s\", \"scored_share\": \"%a\",\n", about->has_rules,
         about->precision, facts.scored_share);
  print_tiles(result, &facts);
  print_regions(result, &facts);
  print_floats("embeddings", facts.embeddings, facts.n_tiles * about->embedding_dims);
  printf(" \"map\": %s}\n", facts.map == NULL ? "false" : "true");
  if (facts.map == NULL) return;
  const size_t n = (size_t)facts.image_height * (size_t)facts.image_width;
  FILE* file = fopen(map_path, "wb");
  if (file == NULL || fwrite(facts.map, sizeof(float), n, file) != n) abort();
  fclose(file);
}

int main(int argc, char** argv) {
  if (argc < FIRST_RECTANGLE) return EXIT_FAILURE;
  const rectangles borders = read_rectangles(argc, argv, "border");
  const rectangles labels = read_rectangles(argc, argv, "label");
  const rectangles tiles = read_rectangles(argc, argv, "tile");
  const kad_detector_options options = {.struct_size = sizeof(options),
                                        .n_threads = atoi(argv[7]),
                                        .batch = atoi(argv[8]),
                                        .scores_only = atoi(argv[9]),
                                        .denoise = getenv("DENOISE_FROM") ? denoise : NULL};
  size_t bytes = 0;
  void* pixels = read_file(argv[2], &bytes);
  const kad_image image = {.struct_size = sizeof(image),
                           .pixel_format = atoi(argv[3]),
                           .height = atoi(argv[4]),
                           .width = atoi(argv[5]),
                           .row_stride = atoi(argv[6]),
                           .data = pixels};
  const kad_score_request request = {.struct_size = sizeof(request),
                                     .borders = borders.items,
                                     .n_borders = borders.count,
                                     .labels = labels.items,
                                     .n_labels = labels.count};
  kad_detector* detector = NULL;
  kad_session* session = NULL;
  if (kad_detector_open(argv[1], &options, &detector) != KAD_OK) return fail();
  if (kad_session_create(detector, &session) != KAD_OK) return fail();
  kad_detector_facts about = {.struct_size = sizeof(about)};
  if (kad_detector_info(detector, &about) != KAD_OK) return fail();
  printf("{");
  print_own_tiles(&about, session, &image, &tiles);
  // Twice: what a session keeps from board to board must not show.
  for (int i = 0; i < 2; ++i) {
    kad_result* result = NULL;
    if (kad_session_score_image(session, &image, &request, &result) != KAD_OK) return fail();
    if (i == 1) print_result(&about, result, argv[10]);
    kad_result_close(result);
  }
  kad_session_close(session);
  kad_detector_close(detector);
  free(pixels);
  return EXIT_SUCCESS;
}
