// CUDA C++ on a CPU: what the kernels of the tensor tier ask of the language and of a GPU, so that
// they can be compiled by a C++ compiler as they are. It stands for <instructions.cuh> too.
//
// Every thread of a block has a stack of its own and runs until it must wait: for its warp, at a
// shuffle, a vote or an instruction of the tensor cores; for its block, at __syncthreads(). What a
// GPU leaves open is chosen by a seed: in which order threads run, in turn or one warp as far ahead
// of the others as it may, and whether an asynchronous copy comes at once or as late as it may.
// Tensor cores cut off all that they may (multiply, below).
// Threads of a warp that wait for different things, or for one that has ended, are an error.
//
// Blocks run one after the other, or, where a launch needs all at the same time, in as many threads
// of the system.

#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ thread_local
#define threadIdx (emulator::me->thread_index)
#define blockIdx (emulator::block->block_index)
#define gridDim (emulator::block->grid)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
};

namespace emulator {

constexpr int kWarp = 32;
constexpr int kMostShared = 227 << 10;
constexpr size_t kStack = 128 << 10;
constexpr char kPoison = '\x7f';  // in shared memory; fp16 and float32 of it are no likely values

enum class Op { kShuffle, kVote, kLoadMatrices, kMultiply };

struct Slot {  // what a lane brings to its warp
  uint32_t word[6];
};

struct Warp {
  unsigned meetings = 0;
  int arrived = 0;
  Op op;
  Slot slot[2][kWarp];  // of meetings of even and odd number
};

struct Copy {
  void* to;
  const void* from;
  int group;
};

struct Thread {
  jmp_buf at;
  ucontext_t start;
  dim3 thread_index;
  Warp* warp;
  const unsigned* awaited;  // goes on when this is no longer `seen`
  unsigned seen;
  bool started, ended;
  std::vector<Copy> copies;
  int groups;
};

struct Launch {
  void (*kernel)(void** arguments);
  void** arguments;
  dim3 grid;
  int n_threads;
  unsigned seed;
  std::atomic<bool> failed{false};
  std::string why;

  void fail(const std::string& reason) {
    if (!failed.exchange(true)) why = reason;
  }
};

inline thread_local Thread* me;

struct Block {
  Launch* launch;
  dim3 block_index, grid;
  jmp_buf home;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> order;
  unsigned barriers = 0;
  int arrived = 0;
  bool late_copies, in_turn;
  char* stacks;

  Block(Launch& launch_, unsigned seed) : launch(&launch_), grid(launch_.grid) {
    const int n = launch->n_threads;
    threads.resize(n);
    warps.resize(n / kWarp);
    std::mt19937 random(seed);
    std::vector<int> places(n / kWarp);
    std::iota(places.begin(), places.end(), 0);
    if (random() % 2) std::shuffle(places.begin(), places.end(), random);
    const int turned = random() % kWarp;
    for (int warp : places)
      for (int lane = 0; lane < kWarp; lane++) order.push_back(warp * kWarp + (lane ^ turned));
    in_turn = random() % 2;
    late_copies = random() % 2;
    stacks = static_cast<char*>(mmap(nullptr, n * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) launch->fail("no memory for the stacks of a block");
  }
  ~Block() {
    if (stacks != MAP_FAILED) munmap(stacks, threads.size() * kStack);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  static bool may_run(const Thread& thread) {
    return !thread.ended && !(thread.awaited && *thread.awaited == thread.seen);
  }
  // The place in the order of the thread that runs after the one at `last`; their number if none
  // may.
  size_t choose(size_t last) const {
    const size_t n = order.size();
    if (!in_turn && me && me->awaited) {  // the same warp, then the first that may
      for (size_t i = 1; i <= kWarp; i++) {
        const size_t place = last / kWarp * kWarp + (last + i) % kWarp;
        if (may_run(threads[order[place]])) return place;
      }
      last = n - 1;
    }
    for (size_t i = 1; i <= n; i++)
      if (may_run(threads[order[(last + i) % n]])) return (last + i) % n;
    return n;
  }
  void run(unsigned x, unsigned y);
};

inline thread_local Block* block;
inline thread_local __align__(128) char anchor[16];  // addresses of shared memory count from here

// Lets others run, until `awaited` changes.
[[gnu::noinline]] inline void yield(const unsigned* awaited = nullptr) {
  me->awaited = awaited;
  me->seen = awaited ? *awaited : 0;
  if (!_setjmp(me->at)) _longjmp(block->home, 1);
}

[[noreturn]] inline void stop(const std::string& why) {
  char place[96];
  std::snprintf(place, sizeof place, "block (%u, %u), thread %u: ", block->block_index.x,
                block->block_index.y, me->thread_index.x);
  block->launch->fail(place + why);
  _longjmp(block->home, 1);
}

inline void entry() {
  block->launch->kernel(block->launch->arguments);
  me->ended = true;
  _longjmp(block->home, 1);
}

inline void Block::run(unsigned x, unsigned y) {
  block = this;
  me = nullptr;
  block_index = {x, y, 0};
  for (size_t i = 0; i < threads.size(); i++) {
    Thread& thread = threads[i];
    thread.thread_index = {static_cast<unsigned>(i), 0, 0};
    thread.warp = &warps[i / kWarp];
    thread.awaited = nullptr;
    thread.started = thread.ended = false;
    thread.copies.clear();
    thread.groups = 0;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = stacks + i * kStack;
    thread.start.uc_stack.ss_size = kStack;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, entry, 0);
  }
  volatile size_t left = threads.size(), at = 0;
  while (left > 0 && !launch->failed) {
    const size_t next = choose(at);
    if (next == threads.size()) {
      launch->fail("threads wait for others that have ended or that wait elsewhere");
      break;
    }
    at = next;
    me = &threads[order[next]];
    if (!_setjmp(home)) {
      if (me->started) _longjmp(me->at, 1);
      me->started = true;
      setcontext(&me->start);
    }
    if (me->ended) left = left - 1;
  }
}

// Waits for the warp; the number of the slots that hold what its lanes brought.
inline int meet_warp(Op op, const Slot& slot) {
  Warp& warp = *me->warp;
  const int slots = warp.meetings & 1;
  warp.slot[slots][me->thread_index.x % kWarp] = slot;
  if (warp.arrived == 0) warp.op = op;
  if (warp.op != op) stop("the lanes of a warp are at different instructions");
  if (++warp.arrived < kWarp) {
    yield(&warp.meetings);
  } else {
    warp.arrived = 0;
    warp.meetings++;
  }
  return slots;
}

inline const Slot& brought(int slots, int lane) { return me->warp->slot[slots][lane]; }

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Shuffles in `width` lanes; `source` is given the lane's number in them.
template <class T, class F>
T shuffle(T value, int width, const F& source) {
  static_assert(sizeof(T) <= 8);
  Slot slot{};
  std::memcpy(slot.word, &value, sizeof value);
  const int slots = meet_warp(Op::kShuffle, slot);
  const int lane = me->thread_index.x % kWarp, first = lane & ~(width - 1);
  const int from = source(lane - first);
  if (from >= 0 && from < width)
    std::memcpy(&value, brought(slots, first + from).word, sizeof value);
  return value;
}

inline unsigned vote(bool yes) {
  const int slots = meet_warp(Op::kVote, {{yes}});
  unsigned all = 0;
  for (int i = 0; i < kWarp; i++) all |= brought(slots, i).word[0] << i;
  return all;
}

inline char* shared_pointer(unsigned address, unsigned alignment) {
  if (address % alignment) stop("a misaligned address in shared memory");
  return anchor + static_cast<int>(address);
}

inline void bring(const Copy& copy) { std::memcpy(copy.to, copy.from, 16); }

struct Halves {  // all halves as float32
  float value[1 << 16];
  Halves() {
    for (int i = 0; i < 1 << 16; i++)
      value[i] = static_cast<float>(bits<_Float16>(static_cast<uint16_t>(i)));
  }
};
inline const Halves halves;

inline float power_of_two(int n) { return bits<float>(static_cast<uint32_t>(127 + n) << 23); }

// The sum so far and eight products of halves, as tensor cores may add them: every term is cut off
// below an ulp of the largest, towards zero, and so is the sum.
inline float add_eight(float sum, const float* product) {
  uint32_t largest = bits<uint32_t>(sum) & INT_MAX;  // of positive floats, bits are in their order
  for (int i = 0; i < 8; i++) largest = std::max(largest, bits<uint32_t>(product[i]) & INT_MAX);
  const int exponent = static_cast<int>(largest >> 23) - 127;
  if (exponent == 128 || largest == 0) {
    for (int i = 0; i < 8; i++) sum += product[i];
    return sum;
  }
  // All terms are multiples of 2^-48, so that these powers of two are float32.
  const float up = power_of_two(23 - exponent), down = power_of_two(exponent - 23);
  int total = static_cast<int>(sum * up);
  for (int i = 0; i < 8; i++) total += static_cast<int>(product[i] * up);
  unsigned length = std::abs(total);  // up to 28 bits, of which float32 holds 24
  if (length >> 24) length &= ~0u << (8 - __builtin_clz(length));
  return static_cast<float>(total < 0 ? -static_cast<int>(length) : static_cast<int>(length)) *
         down;
}

template <class... Arguments, size_t... I>
void call_with(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<Arguments*>(arguments[I])...);
}

template <class... Arguments>
void call(void (*kernel)(Arguments...), void** arguments) {
  call_with(kernel, arguments, std::index_sequence_for<Arguments...>());
}

}  // namespace emulator

inline thread_local __align__(128) char shared[emulator::kMostShared];

// What CUDA C++ has.

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
template <class T>
T __ldg(const T* from) {
  return *from;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

inline void __syncthreads() {
  emulator::Block& block = *emulator::block;
  if (++block.arrived < block.launch->n_threads) {
    emulator::yield(&block.barriers);
  } else {
    block.arrived = 0;
    block.barriers++;
  }
}

template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  return emulator::shuffle(value, width, [=](int) { return from & (width - 1); });
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by, int width = 32) {
  return emulator::shuffle(value, width, [=](int lane) { return lane - by; });
}
template <class T>
T __shfl_down_sync(unsigned, T value, int by, int width = 32) {
  return emulator::shuffle(value, width, [=](int lane) { return lane + by; });
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int by, int width = 32) {
  return emulator::shuffle(value, width, [=](int lane) { return lane ^ by; });
}
inline unsigned __ballot_sync(unsigned, bool yes) { return emulator::vote(yes); }
inline bool __any_sync(unsigned, bool yes) { return emulator::vote(yes) != 0; }

template <class T>
T atomicAdd(T* at, T value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline int atomicOr(int* at, int value) { return __atomic_fetch_or(at, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* at, int value) {
  return __atomic_fetch_add(at, static_cast<unsigned>(value), __ATOMIC_RELAXED);
}
template <class T>
T atomicMax(T* at, T value) {
  T seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED)) {
  }
  return seen;
}

// What instructions.cuh has.

namespace {

inline unsigned short to_half(float x) {
  return emulator::bits<unsigned short>(static_cast<_Float16>(x));
}

inline float from_half(unsigned short h) { return static_cast<float>(emulator::bits<_Float16>(h)); }

inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(static_cast<const char*>(p) - emulator::anchor);
}

// Four matrices of 8 x 8 halves: eight lanes each give their rows' addresses.
inline void load_matrices(unsigned (&r)[4], unsigned address) {
  const int slots = emulator::meet_warp(emulator::Op::kLoadMatrices, {{address}});
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; i++) {
    const unsigned row = emulator::brought(slots, 8 * i + lane / 4).word[0];
    std::memcpy(&r[i], emulator::shared_pointer(row, 16) + lane % 4 * 4, 4);
  }
}

// c (16, 8) += a (16, 16) b (16, 8)
inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const int slots =
      emulator::meet_warp(emulator::Op::kMultiply, {{a[0], a[1], a[2], a[3], b0, b1}});
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; i++) {
    const int row = lane / 4, low = i / 2, column = lane % 4 * 2 + i % 2;
    for (int half = 0; half < 2; half++) {
      float product[8];
      for (int t = 0; t < 4; t++) {
        const unsigned left = emulator::brought(slots, 4 * row + t).word[low + 2 * half];
        const unsigned right = emulator::brought(slots, 4 * column + t).word[4 + half];
        product[2 * t] = from_half(left & 0xffff) * from_half(right & 0xffff);
        product[2 * t + 1] = from_half(left >> 16) * from_half(right >> 16);
      }
      c[i] = emulator::add_eight(c[i], product);
    }
  }
}

inline void copy_async(unsigned to, const void* from) {
  emulator::Thread& me = *emulator::me;
  if (reinterpret_cast<uintptr_t>(from) % 16) emulator::stop("a misaligned address of a copy");
  const emulator::Copy copy{emulator::shared_pointer(to, 16), from, me.groups};
  if (emulator::block->late_copies)
    me.copies.push_back(copy);
  else
    emulator::bring(copy);
}

inline void commit_copies() { emulator::me->groups++; }

template <int kLeft>
void wait_for_copies() {
  std::vector<emulator::Copy>& copies = emulator::me->copies;
  size_t n = 0;
  while (n < copies.size() && copies[n].group < emulator::me->groups - kLeft)
    emulator::bring(copies[n++]);
  copies.erase(copies.begin(), copies.begin() + n);
}

inline unsigned load_acquire(const unsigned* from) {
  std::this_thread::yield();
  emulator::yield();
  return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

}  // namespace

namespace emulator {

// Runs a grid; null, or what went wrong.
inline const char* run_grid(Launch& launch, bool together) {
  thread_local std::string why;
  const auto run = [&launch](unsigned first, unsigned step) {
    Block block(launch, launch.seed + first);
    const unsigned n = launch.grid.x * launch.grid.y;
    for (unsigned i = first; i < n && !launch.failed; i += step) {
      std::memset(shared, kPoison, sizeof shared);
      block.run(i % launch.grid.x, i / launch.grid.x);
    }
  };
  if (together) {
    std::vector<std::thread> running;
    const unsigned n = launch.grid.x * launch.grid.y;
    for (unsigned i = 0; i < n; i++) running.emplace_back(run, i, n);
    for (std::thread& thread : running) thread.join();
  } else {
    run(0, 1);
  }
  why = launch.why;
  return launch.failed ? why.c_str() : nullptr;
}

}  // namespace emulator

// Makes `emulate` of a kernel.
#define EMULATE(name)                                                                            \
  extern "C" const char* emulate(unsigned grid_x, unsigned grid_y, int n_threads, bool together, \
                                 unsigned seed, void** arguments) {                              \
    emulator::Launch launch;                                                                     \
    launch.kernel = [](void** given) { emulator::call(name, given); };                           \
    launch.arguments = arguments;                                                                \
    launch.grid = {grid_x, grid_y, 1};                                                           \
    launch.n_threads = n_threads;                                                                \
    launch.seed = seed;                                                                          \
    return emulator::run_grid(launch, together);                                                 \
  }
