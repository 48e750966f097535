// Memory runs out at each allocation in turn, for that one or for all that follow: a status and a
// text, nothing is lost, and what was opened before still works.
//   test_memory each|some FAILING_LIBRARY|- ARTIFACT...
// `some`: the first 40 allocations one by one, then in growing steps. With the library, that of
// failing_onnxruntime.c, ONNX Runtime runs the network; its own allocations never fail.
#include <dlfcn.h>
#include <locale.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <string>

#include "../check.h"
#include "../descriptors.h"
#include "toy_network.h"

namespace {

std::atomic<long> left{-1};  // allocations that still succeed; -1: all of them
std::atomic<long> held{0};   // allocations of libkad and of this program that are not freed
std::atomic<bool> for_ever{false};
std::atomic<bool> fired{false};
bool is_exhaustive = false;
int (*is_in_runtime)() = nullptr;
long (*runtime_holds)() = nullptr;

thread_local bool is_main_thread = false;

// Whether an allocation is one of libkad. ONNX Runtime allocates in its own calls, and in a thread
// of its own that lives as long as the process.
bool is_ours() { return is_in_runtime == nullptr || (is_main_thread && is_in_runtime() == 0); }

bool is_due() {
  long now = left.load();
  while (now > 0 && !left.compare_exchange_weak(now, now - 1)) {
  }
  if (now != 0) return false;
  if (!for_ever) left = -1;
  fired = true;
  return true;
}

/// Before each block, so that what is freed is known.
struct alignas(16) Header {
  bool counts;
};

void* allocate(std::size_t bytes) {
  const bool counts = is_ours();
  void* memory = counts && is_due() ? nullptr : std::malloc(sizeof(Header) + bytes);
  if (memory == nullptr) throw std::bad_alloc();
  if (counts) ++held;
  return new (memory) Header{counts} + 1;
}

void release(void* memory) {
  if (memory == nullptr) return;
  Header* header = static_cast<Header*>(memory) - 1;
  if (header->counts) --held;
  std::free(header);
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
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

// The board's sums are allocated with this.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  using Function = void* (*)(std::size_t, std::size_t);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "aligned_alloc"));
  return is_ours() && is_due() ? nullptr : next(alignment, bytes);
}

// Fails the first time, as it may where memory is short.
extern "C" locale_t newlocale(int mask, const char* name, locale_t base) noexcept {
  using Function = locale_t (*)(int, const char*, locale_t);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "newlocale"));
  static bool failed = false;
  if (failed) return next(mask, name, base);
  failed = true;
  errno = ENOMEM;
  return nullptr;
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

int mapped_artifacts() {
  std::ifstream maps("/proc/self/maps");
  int n = 0;
  for (std::string line; std::getline(maps, line);) n += line.find(".kad/") != std::string::npos;
  return n;
}

// Runs `call` with a failure at allocation 0, 1, 2 ... until one call needs fewer. Whether a call
// may leave more than it found: scratch memory of a session that stays open.
template <class F>
long fail_everywhere(bool all_that_follow, bool may_keep, F&& call) {
  const int descriptors = open_descriptors(), maps = mapped_artifacts();
  const long runtime = runtime_holds == nullptr ? 0 : runtime_holds();
  long n = 0;
  for (long at = 0;; at += is_exhaustive ? 1 : 1 + at / 40) {
    const long before = held;
    arm(at, all_that_follow);
    call();
    disarm();
    CHECK(may_keep || held == before);
    CHECK(may_keep || runtime_holds == nullptr || runtime_holds() == runtime);
    if (!fired) break;
    ++n;
  }
  CHECK(open_descriptors() == descriptors);
  CHECK(mapped_artifacts() == maps);
  return n;
}

void test_artifact(const char* path, const kad_detector_options& options, bool all_that_follow) {
  const long opens = fail_everywhere(all_that_follow, false, [&] {
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
  const long scores = fail_everywhere(all_that_follow, false, [&] {
    kad_session* session = nullptr;
    status = kad_session_create(detector, &session);
    check_status(status, "session");
    if (session != nullptr) score(session, &status);
    check_status(status, "score");
    kad_session_close(session);
  });
  const long repeats = fail_everywhere(all_that_follow, true, [&] {
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

// A selection whose memory runs out says what it has chosen, and goes on from there.
void test_selection() {
  constexpr int64_t kPoints = 700, kWanted = 650;  // more than are kept exact at a time: two draws
  float points[kPoints], first[kPoints];
  for (int64_t i = 0; i < kPoints; ++i) {
    points[i] = static_cast<float>(i * i % 1009);
    first[i] = INFINITY;
  }
  kad_directions directions = {};
  directions.struct_size = sizeof(directions);
  directions.dims = 1;
  int64_t expected[kWanted], rows[kWanted];
  float dist[kWanted];
  bool has_failed = true;
  for (long at = -1; has_failed; ++at) {
    kad_kcenter* kcenter = nullptr;
    CHECK_OK(kad_kcenter_create(&directions, points, kPoints, first, 1, 1, &kcenter));
    int64_t count = 0, more = 0;
    int64_t* out = at < 0 ? expected : rows;
    arm(at, false);
    const kad_status status =
        kad_kcenter_pick(kcenter, kWanted, -INFINITY, INT64_MAX, 1, out, dist, &count);
    disarm();
    has_failed = status != KAD_OK;
    CHECK(has_failed == fired);
    check_status(status, "pick");
    CHECK_OK(kad_kcenter_pick(kcenter, kWanted - count, -INFINITY, INT64_MAX, 1, out + count,
                              dist + count, &more));
    CHECK(count + more == kWanted);
    CHECK(at < 0 || std::memcmp(rows, expected, sizeof(rows)) == 0);
    kad_kcenter_close(kcenter);
    has_failed |= at < 0;
  }
}

// Once with success, so that what a process makes but once is there.
void warm_up(const char* path, const kad_detector_options& options) {
  kad_detector* detector = nullptr;
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_OUT_OF_MEMORY,
              "out of memory");  // of newlocale
  CHECK_OK(kad_detector_open(path, &options, &detector));
  kad_session* session = nullptr;
  kad_status status = KAD_OK;
  CHECK_OK(kad_session_create(detector, &session));
  score(session, &status);
  CHECK_OK(status);
  kad_session_close(session);
  kad_detector_close(detector);
}

void use_runtime(const char* library, kad_detector_options* options) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) abort();
  is_in_runtime = reinterpret_cast<int (*)()>(dlsym(handle, "failing_is_inside"));
  runtime_holds = reinterpret_cast<long (*)()>(dlsym(handle, "failing_live"));
  options->provider = KAD_PROVIDER_CPU;
  options->network = nullptr;
  options->onnxruntime = library;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return EXIT_FAILURE;
  is_main_thread = true;
  is_exhaustive = std::strcmp(argv[1], "each") == 0;
  kad_detector_options options = toy_options();
  options.n_threads = 2;
  if (std::strcmp(argv[2], "-") != 0) {
    use_runtime(argv[2], &options);
    options.n_threads = 1;  // so that all of libkad's allocations are the main thread's
  }
  paint_board(board, kSide, kSide, 3, 1);
  test_selection();
  warm_up(argv[3], options);
  for (int i = 3; i < argc; ++i) {
    test_artifact(argv[i], options, false);
    test_artifact(argv[i], options, true);
  }
  return check_result();
}
