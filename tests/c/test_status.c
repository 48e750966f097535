// Version, status names, the error text, levels, and that each thread has its own text.
// POSIX threads, because ThreadSanitizer does not know those of C11.
#include <pthread.h>

#include "check.h"

static void* fail_elsewhere(void* unused) {
  CHECK(strcmp(kad_last_error(), "") == 0);
  CHECK_INVALID(kad_board_add(NULL, NULL, 0, NULL, NULL, 1), "board is NULL");
  return unused;
}

static void test_text_belongs_to_its_thread(void) {
  CHECK_INVALID(kad_cpu_level_force(9), "got 9");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, fail_elsewhere, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(strstr(kad_last_error(), "got 9") != NULL);
  CHECK_OK(kad_cpu_level_force(KAD_LEVEL_AUTO));
  CHECK(strcmp(kad_last_error(), "") == 0);
}

static void test_levels(void) {
  const int32_t best = kad_cpu_level();
  CHECK(best >= KAD_LEVEL_SCALAR && best <= KAD_LEVEL_AVX512VNNI);
  for (int32_t level = KAD_LEVEL_SCALAR; level <= KAD_LEVEL_AVX512VNNI; ++level) {
    if (level <= best) {
      CHECK_OK(kad_cpu_level_force(level));
      CHECK(kad_cpu_level() == level);
    } else {
      CHECK_FAILS(kad_cpu_level_force(level), KAD_ERROR_UNSUPPORTED, "the best level is");
      CHECK(kad_cpu_level() == best);
    }
  }
  CHECK_INVALID(kad_cpu_level_force(-2), "got -2");
  CHECK_OK(kad_cpu_level_force(KAD_LEVEL_AUTO));
  CHECK(kad_cpu_level() == best);
}

int main(void) {
  CHECK(kad_abi_version() == KAD_ABI_VERSION);
  CHECK(strlen(kad_version_string()) >= 5);
  CHECK(strcmp(kad_status_name(KAD_OK), "KAD_OK") == 0);
  CHECK(strcmp(kad_status_name(KAD_ERROR_TOO_SMALL), "KAD_ERROR_TOO_SMALL") == 0);
  CHECK(strcmp(kad_status_name(KAD_ERROR_INTERNAL), "KAD_ERROR_INTERNAL") == 0);
  for (kad_status status = KAD_OK; status <= KAD_ERROR_ARTIFACT_UNREADABLE; ++status) {
    CHECK(strncmp(kad_status_name(status), "KAD_", 4) == 0);
  }
  CHECK(strcmp(kad_status_name(KAD_ERROR_ARTIFACT_UNREADABLE + 1), "unknown status") == 0);
  CHECK(strcmp(kad_status_name(-1), "unknown status") == 0);
  kad_board_close(NULL);
  kad_index_close(NULL);
  test_levels();
  test_text_belongs_to_its_thread();
  return check_result();
}
