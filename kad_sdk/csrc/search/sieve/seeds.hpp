// First guesses: for each query some rows that are near, found by a quick look at all of them.
//
// Queries that lie beside each other are alike, so it is their means, cell by cell, that are
// compared with the rows, by narrow codes of few coordinates. Nothing depends on how good the
// guesses are but the time that the search takes.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/narrow_vectors.hpp"
#include "search/sieve/query_coordinates.hpp"
#include "search/sieve/query_grid.hpp"
#include "search/sieve/sieve.hpp"

namespace kad {

class Seeds {
 public:
  explicit Seeds(const Sieve& sieve) : sieve_(sieve) {}

  /// Look for rows near n queries that lie in a grid; `wanted` for each of them at least, where
  /// the bank has them.
  void find(const QueryCoordinates& queries, const QueryGrid& grid, int32_t exponent,
            int64_t wanted);

  /// Slots of the rows that were found for a query, each once.
  const std::vector<int32_t>& of(int64_t query) const {
    return slots_[static_cast<size_t>(cell_of(query))];
  }

  /// Multiplications of codes in `find`.
  int64_t products() const { return products_; }

 private:
  int64_t cell_of(int64_t query) const {
    return query / grid_.width / grid_.cell * cells_across_ + query % grid_.width / grid_.cell;
  }
  void take_means(const QueryCoordinates& queries, int32_t exponent);
  void compare(int32_t exponent);
  void choose(int64_t wanted);
  void sort_best(int64_t cell, int64_t most);
  void add_best(int64_t cell, int64_t most, std::vector<int32_t>& slots) const;

  const Sieve& sieve_;
  QueryGrid grid_ = {};
  int64_t cells_across_ = 0;
  int64_t cells_down_ = 0;
  int64_t n_places_ = 0;  // cells, in whole tiles
  int64_t products_ = 0;
  NarrowVectors codes_;                      // of the cells' means
  std::vector<int16_t> starts_;              // (places,)
  std::vector<uint16_t> products_of_panel_;  // (places, kCodeRows)
  std::vector<int16_t> best_;                // (places, kCodeRows)
  std::vector<uint16_t> panels_;             // (places, kCodeRows) of those
  int64_t n_sorted_ = 0;                     // of each cell
  std::vector<int32_t> sorted_;              // (cells, n_sorted) slots, nearest first, or -1
  std::vector<std::vector<int32_t>> slots_;  // of each cell and its neighbours
};

}  // namespace kad
