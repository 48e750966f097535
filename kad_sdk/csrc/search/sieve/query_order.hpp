// The order in which a block's queries are searched.
#pragma once

#include <cstdint>
#include <vector>

namespace kad {

/// Queries that are searched together, and where their neighbours are that were searched before.
struct QueryRound {
  std::vector<int32_t> queries;
  int64_t neighbours[4];  // to be added to a query's number; 0 is none
};

/// The distance at which queries are most alike again, the row length of the patch grid they come
/// from; n when there is none. coordinates is (n, width).
int64_t row_length(const float* coordinates, int64_t n, int64_t width);

/// Rounds from coarse to fine, over all n queries taken as rows of this length. Every query of a
/// round but the first lies between queries of the rounds before: first the centres of their
/// squares, then the middles of the sides.
std::vector<QueryRound> query_rounds(int64_t n, int64_t row_length);

}  // namespace kad
