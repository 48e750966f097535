// Memory runs out at each allocation in turn, for that one or for all that follow: a status and a
// text, nothing is lost, and what was opened before still works.
//   test_memory ARTIFACT...
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include "../check.h"
#include "toy_network.h"

namespace {

std::atomic<long> left{-1};  // allocations that still succeed; -1: all of them
std::atomic<bool> for_ever{false};
std::atomic<bool> fired{false};

bool is_due() {
  long now = left.load();
  while (now > 0 && !left.compare_exchange_weak(now, now - 1)) {
  }
  if (now != 0) return false;
  if (!for_ever) left = -1;
  fired = true;
  return true;
}

void* allocate(std::size_t bytes) {
  void* memory = is_due() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void arm(long allocations, bool all_that_follow) {
  fired = false;
  for_ever = all_that_follow;
  left = allocations;
}

void disarm() { left = -1; }

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

// The board's sums are allocated with this.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  using Function = void* (*)(std::size_t, std::size_t);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "aligned_alloc"));
  return is_due() ? nullptr : next(alignment, bytes);
}

namespace {

constexpr int kSide = 64;
uint8_t board[kSide * kSide * 3];

void check_status(kad_status status, const char* what) {
  if (status == KAD_OK) return;
  if (status != KAD_ERROR_OUT_OF_MEMORY || std::string(kad_last_error()).empty()) {
    ++check_failures;
    fprintf(stderr, "%s: %s: %s\n", what, kad_status_name(status), kad_last_error());
  }
}

float score(kad_session* session, kad_status* status) {
  const kad_image image = rgb_image(board, kSide, kSide);
  kad_result* result = nullptr;
  *status = kad_session_score_image(session, &image, nullptr, &result);
  CHECK((*status == KAD_OK) == (result != nullptr));
  if (result == nullptr) return 0.0F;
  kad_result_facts facts = {};
  facts.struct_size = sizeof(facts);
  CHECK_OK(kad_result_info(result, &facts));
  kad_result_close(result);
  return facts.score;
}

// Runs `call` with a failure at allocation 0, 1, 2 ... until one call needs fewer; later ones are
// tried in growing steps.
template <class F>
long fail_everywhere(bool all_that_follow, F&& call) {
  long n = 0;
  for (long at = 0;; at += 1 + at / 40) {
    arm(at, all_that_follow);
    call();
    disarm();
    if (!fired) return n;
    ++n;
  }
}

void test_artifact(const char* path, bool all_that_follow) {
  kad_detector_options options = toy_options();
  options.n_threads = 2;
  const long opens = fail_everywhere(all_that_follow, [&] {
    kad_detector* detector = nullptr;
    const kad_status status = kad_detector_open(path, &options, &detector);
    CHECK((status == KAD_OK) == (detector != nullptr));
    check_status(status, "open");
    kad_detector_close(detector);
  });
  kad_detector* detector = nullptr;
  CHECK_OK(kad_detector_open(path, &options, &detector));
  kad_status status = KAD_OK;
  kad_session* kept = nullptr;
  CHECK_OK(kad_session_create(detector, &kept));
  const float expected = score(kept, &status);
  CHECK_OK(status);
  const long scores = fail_everywhere(all_that_follow, [&] {
    kad_session* session = nullptr;
    status = kad_session_create(detector, &session);
    check_status(status, "session");
    if (session != nullptr) score(session, &status);
    check_status(status, "score");
    kad_session_close(session);
  });
  const long repeats = fail_everywhere(all_that_follow, [&] {
    const float found = score(kept, &status);
    check_status(status, "score again");
    CHECK(status != KAD_OK || found == expected);
  });
  CHECK(score(kept, &status) == expected);
  CHECK(opens > 100 && scores > 20 && repeats > 10);
  printf("%s: memory ran out in %ld openings, %ld first scores, %ld later ones\n", path, opens,
         scores, repeats);
  kad_session_close(kept);
  kad_detector_close(detector);
}

}  // namespace

int main(int argc, char** argv) {
  paint_board(board, kSide, kSide, 3, 1);
  for (int i = 1; i < argc; ++i) {
    test_artifact(argv[i], false);
    test_artifact(argv[i], true);
  }
  return check_result();
}
