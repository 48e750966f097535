/* Score boards from PNM files (binary PGM or PPM, 8 or 16 bits):
 *
 *   score_pnm BOARD.kad IMAGE...
 *
 * A camera's frame is scored the same way: fill in a kad_image over the grabber's buffer, with its
 * pixel format and row stride; nothing is copied. */
#include <ctype.h>
#include <kad/detector.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct picture {
  int width;
  int height;
  int channels;
  int bytes_per_value;
  unsigned char* data;
} picture;

/* The next number of a PNM header; -1 when there is none. */
static int read_number(FILE* file) {
  int c = fgetc(file);
  while (isspace(c) || c == '#') {
    if (c == '#') {
      while (c != '\n' && c != EOF) c = fgetc(file);
    }
    c = fgetc(file);
  }
  int number = isdigit(c) ? 0 : -1;
  for (; isdigit(c) && number < 1 << 24; c = fgetc(file)) number = 10 * number + (c - '0');
  return number;
}

/* 16-bit values of PNM are big-endian, those of a kad_image are the machine's own. */
static void swap_bytes(picture* p, size_t n) {
  const unsigned short one = 1;
  if (*(const unsigned char*)&one == 0) return;
  for (size_t i = 0; i + 1 < n; i += 2) {
    const unsigned char high = p->data[i];
    p->data[i] = p->data[i + 1];
    p->data[i + 1] = high;
  }
}

/* 1 when the file was read; *p is freed by the caller. */
static int read_pnm(const char* path, picture* p) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return 0;
  const int magic = fgetc(file) == 'P' ? fgetc(file) : 0;
  p->channels = magic == '5' ? 1 : magic == '6' ? 3 : 0;
  p->width = read_number(file);
  p->height = read_number(file);
  const int largest = read_number(file);
  p->bytes_per_value = largest > 255 ? 2 : 1;
  int good =
      p->channels != 0 && p->width > 0 && p->height > 0 && (largest == 255 || largest == 65535);
  if (good) {
    const size_t n =
        (size_t)p->width * (size_t)p->height * (size_t)(p->channels * p->bytes_per_value);
    p->data = malloc(n);
    good = p->data != NULL && fread(p->data, 1, n, file) == n;
    if (good && p->bytes_per_value == 2) swap_bytes(p, n);
  }
  fclose(file);
  return good;
}

static int fail(const char* what) {
  fprintf(stderr, "score_pnm: %s: %s\n", what, kad_last_error());
  return EXIT_FAILURE;
}

static void print_regions(const kad_result* result, int64_t n_regions) {
  for (int64_t i = 0; i < n_regions; ++i) {
    kad_region_result region = {.struct_size = sizeof(region)};
    if (kad_result_region(result, i, &region) != KAD_OK) continue;
    printf("  defect at x %d, y %d, %d x %d px, peak %.3f\n", region.x, region.y, region.width,
           region.height, (double)region.peak);
  }
}

static int score(kad_session* session, const char* path) {
  picture p = {0};
  if (!read_pnm(path, &p)) {
    free(p.data);
    fprintf(stderr,
            "score_pnm: %s: cannot be read as a binary PGM or PPM of 8 or 16 bits (maxval 255 or "
            "65535)\n",
            path);
    return EXIT_FAILURE;
  }
  static const int formats[2][2] = {{KAD_PIXEL_GREY8, KAD_PIXEL_GREY16},
                                    {KAD_PIXEL_RGB8, KAD_PIXEL_RGB16}};
  const kad_image image = {
      .struct_size = sizeof(image),
      .pixel_format = formats[p.channels == 3][p.bytes_per_value == 2],
      .height = p.height,
      .width = p.width,
      .row_stride = (int64_t)p.width * p.channels * p.bytes_per_value,
      .data = p.data,
  };
  kad_result* result = NULL;
  const kad_status status = kad_session_score_image(session, &image, NULL, &result);
  free(p.data); /* the result holds no pixels */
  if (status != KAD_OK) return fail(path);
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  kad_result_info(result, &facts);
  printf("%s: %s, score %.3f, threshold %.3f, %.1f ms\n", path,
         facts.anomalous ? "anomalous" : "normal", (double)facts.score, facts.threshold,
         facts.total_ms);
  print_regions(result, facts.n_regions);
  kad_result_close(result);
  return EXIT_SUCCESS;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: score_pnm BOARD.kad IMAGE...\n");
    return EXIT_FAILURE;
  }
  kad_detector* detector = NULL;
  kad_session* session = NULL;
  if (kad_detector_open(argv[1], NULL, &detector) != KAD_OK) return fail(argv[1]);
  int code = EXIT_SUCCESS;
  if (kad_session_create(detector, &session) != KAD_OK) code = fail("session");
  for (int i = 2; i < argc && code == EXIT_SUCCESS; ++i) code = score(session, argv[i]);
  kad_session_close(session);
  kad_detector_close(detector);
  return code;
}
