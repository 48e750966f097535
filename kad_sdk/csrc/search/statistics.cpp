#include "search/statistics.hpp"

#include <cstddef>
#include <cstring>

#include "base/guard.hpp"
#include "search/index.hpp"

namespace kad {
namespace {

static_assert(sizeof(kad_search_stats) == 8 + kCounts * sizeof(int64_t),
              "one field for each of the counts");

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_index_stats(const kad_index* index, kad_search_stats* out_stats) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    kad::check_pointer(out_stats, "out_stats");
    kad_search_stats stats = {};
    int64_t values[kad::kCounts];
    for (int32_t i = 0; i < kad::kCounts; ++i) {
      values[i] = index->totals.of(static_cast<kad::Count>(i));
    }
    std::memcpy(&stats.queries, values, sizeof(values));
    kad::write_struct(stats, out_stats, KAD_FIRST_SIZE(kad_search_stats, dense_ns),
                      "kad_search_stats");
  });
}

kad_status kad_index_info(const kad_index* index, kad_index_facts* out_facts) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    kad::check_pointer(out_facts, "out_facts");
    kad_index_facts facts = {};
    facts.rows = index->rows;
    facts.dims = index->dims;
    facts.bytes = index->bytes();
    if (index->sieve) {
      facts.narrow_dims = index->sieve->depth(index->sieve->n_depths() - 1).dims();
      facts.wide_dims = index->sieve->width();
    }
    kad::write_struct(facts, out_facts, KAD_FIRST_SIZE(kad_index_facts, bytes), "kad_index_facts");
  });
}

}  // extern "C"
