// Code kernels in plain C++.
#include "search/sieve/code_collect.hpp"
#include "search/sieve/code_encode.hpp"
#include "search/sieve/code_kernels.hpp"
#include "search/sieve/code_pairs.hpp"

namespace kad {
namespace {

constexpr int64_t kStepDims = 1;

// Adds the products of one vector's codes and all rows, modulo 2^16, which the compiler makes
// vectors of; `codes` is the vector's first step.
void add_products(const PanelCodes& rows, const int8_t* codes, uint16_t* sums) {
  for (int piece = 0; piece < 2; ++piece) {
    const uint8_t* row = rows.piece[piece];
    for (int64_t step = 0; step < rows.steps[piece]; ++step, codes += kCodeTile) {
      const auto code = static_cast<int16_t>(*codes);
      for (int64_t r = 0; r < kCodeRows; ++r) {
        sums[r] = static_cast<uint16_t>(sums[r] + row[r] * code);
      }
      row += kCodeRows;
    }
  }
}

// The codes of vector i of some that are kept in tiles.
const int8_t* first_step(const PanelCodes& rows, const int8_t* vectors, int64_t i) {
  const int64_t steps = rows.steps[0] + rows.steps[1];
  return vectors + i / kCodeTile * steps * kCodeTile + i % kCodeTile;
}

void products(const PanelCodes& rows, const int8_t* vectors, const int16_t* starts, int64_t n,
              uint16_t* out) {
  for (int64_t i = 0; i < n; ++i, out += kCodeRows) {
    for (int64_t r = 0; r < kCodeRows; ++r) out[r] = static_cast<uint16_t>(starts[i]);
    add_products(rows, first_step(rows, vectors, i), out);
  }
}

uint16_t mean(uint16_t a, uint16_t b) { return static_cast<uint16_t>((a + b + 1) / 2); }

uint16_t mix_one(uint16_t near, uint16_t far, bool half) {
  const uint16_t middle = mean(near, far);
  return half ? middle : mean(middle, near);
}

void mix(const uint16_t* near, const uint16_t* far, bool half, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = mix_one(near[i], far[i], half);
}

void match(const MatchTask& task, uint32_t* masks) {
  for (int64_t q = 0; q < task.n; ++q) {
    uint16_t sums[kCodeRows] = {};
    if (task.mixed != nullptr) {
      const uint16_t *near = task.mixed + task.near[q] * kCodeRows,
                     *far = task.mixed + task.far[q] * kCodeRows;
      for (int64_t r = 0; r < kCodeRows; ++r) {
        sums[r] = static_cast<uint16_t>(mix_one(near[r], far[r], task.half) - kMixRaise);
      }
    }
    add_products(task.rows, first_step(task.rows, task.queries, q), sums);
    const MatchLimit& limit = task.limits[q];
    uint32_t mask = 0;
    for (int64_t r = 0; r < kCodeRows; ++r) {
      const auto above = static_cast<uint16_t>(sums[r] - task.terms[r] - limit.base);
      mask |= static_cast<uint32_t>(static_cast<int16_t>(above) > limit.top) << r;
    }
    masks[q] = mask;
  }
}

void keep_best(const uint16_t* products, const int32_t* terms, int64_t n, uint16_t panel,
               int16_t* best, uint16_t* panels) {
  for (int64_t i = 0; i < n * kCodeRows; ++i) {
    const auto term = static_cast<uint16_t>(terms[i % kCodeRows]);
    const auto value = static_cast<int16_t>(static_cast<uint16_t>(products[i] - term));
    if (value <= best[i]) continue;
    best[i] = value;
    panels[i] = panel;
  }
}

void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  for (int64_t p = 0; p < kPairs; ++p) {
    int32_t sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += int32_t{queries[p][i]} * int32_t{rows[p][i]};
    products[p] = sum;
  }
}

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs, queries, rows, pairs, n, width, products);
}

}  // namespace

const CodeKernels kScalarCodeKernels = {kStepDims,
                                        127,
                                        0,
                                        0.3,
                                        products,
                                        mix,
                                        match,
                                        keep_best,
                                        collect,
                                        pair_products,
                                        encode_narrow,
                                        encode_wide,
                                        compare_codes,
                                        largest_magnitude};

}  // namespace kad
