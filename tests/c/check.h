// The smallest test frame: a failed CHECK prints where and goes on; main returns the result.
#ifndef KAD_TESTS_CHECK_H
#define KAD_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kad/kad.h"

static int check_failures = 0;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      ++check_failures;                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                         \
  } while (0)

#define CHECK_OK(call)                                                  \
  do {                                                                  \
    const kad_status check_status = (call);                             \
    if (check_status != KAD_OK) {                                       \
      ++check_failures;                                                 \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, \
              kad_status_name(check_status), kad_last_error());         \
    }                                                                   \
  } while (0)

// The call fails with this status, and the error text holds these words.
#define CHECK_FAILS(call, status, words)                                                     \
  do {                                                                                       \
    const kad_status check_status = (call);                                                  \
    if (check_status != (status) || strstr(kad_last_error(), (words)) == NULL) {             \
      ++check_failures;                                                                      \
      fprintf(stderr, "%s:%d: %s: %s: \"%s\", expected \"%s\"\n", __FILE__, __LINE__, #call, \
              kad_status_name(check_status), kad_last_error(), (words));                     \
    }                                                                                        \
  } while (0)

#define CHECK_INVALID(call, words) CHECK_FAILS(call, KAD_ERROR_INVALID_ARGUMENT, words)

static inline int check_result(void) {
  if (check_failures != 0) fprintf(stderr, "%d checks failed\n", check_failures);
  return check_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// A buffer between two bands of sentinels: what a function writes beside it shows.
enum { BAND = 64 };

typedef struct banded {
  unsigned char* memory;
  size_t bytes;
} banded;

static inline banded banded_new(size_t bytes) {
  banded buffer = {(unsigned char*)malloc(bytes + 2 * BAND), bytes};
  if (buffer.memory == NULL) abort();
  memset(buffer.memory, 0xA5, bytes + 2 * BAND);
  return buffer;
}

static inline void* banded_data(banded buffer) { return buffer.memory + BAND; }

static inline void banded_check_and_free(banded buffer) {
  for (size_t i = 0; i < BAND; ++i) {
    CHECK(buffer.memory[i] == 0xA5);
    CHECK(buffer.memory[BAND + buffer.bytes + i] == 0xA5);
  }
  free(buffer.memory);
}

// The instruction-set levels of this machine: run a test at each.
static inline void check_at_every_level(void (*test)(void)) {
  for (int32_t level = KAD_LEVEL_SCALAR; level <= KAD_LEVEL_AVX512VNNI; ++level) {
    if (kad_cpu_level_force(level) == KAD_OK) test();
  }
  CHECK_OK(kad_cpu_level_force(KAD_LEVEL_AUTO));
}

#endif
