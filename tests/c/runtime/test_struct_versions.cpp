// A struct that grew between two releases, read from and written to callers of either release.
#define _DEFAULT_SOURCE
#include "../check.h"
#include "../edge.h"
#include "base/guard.hpp"

namespace {

struct Old {
  uint32_t struct_size;
  int32_t number;
};
struct New {
  uint32_t struct_size;
  int32_t number;
  int64_t added;
};
constexpr size_t kFirst = KAD_FIRST_SIZE(New, number);
static_assert(kFirst == sizeof(Old), "the first release had these fields");

New read(const void* given) {
  return kad::read_struct(static_cast<const New*>(given), kFirst, "New");
}

void write(const New& filled, void* out) {
  kad::write_struct(filled, static_cast<New*>(out), kFirst, "New");
}

void test_reading() {
  const Old old = {sizeof(Old), 7};
  const New from_old = read(at_the_edge(&old, sizeof(old)));
  CHECK(from_old.number == 7 && from_old.added == 0);  // what the old caller lacks is 0
  const New same = {sizeof(New), 8, 9};
  CHECK(read(at_the_edge(&same, sizeof(same))).added == 9);
  struct {
    New known;
    int64_t unheard;
  } newer = {{sizeof(newer), 10, 11}, 12};
  CHECK(read(at_the_edge(&newer, sizeof(newer))).added == 11);
}

void test_writing() {
  const New filled = {sizeof(New), 7, 8};
  const Old empty = {sizeof(Old), 0};
  const Old* old = static_cast<Old*>(at_the_edge(&empty, sizeof(empty)));
  write(filled, const_cast<Old*>(old));
  CHECK(old->struct_size == sizeof(Old) && old->number == 7);
  struct {
    New known;
    int64_t unheard;
  } newer = {{sizeof(newer), 0, 0}, 12};
  write(filled, &newer);
  CHECK(newer.known.struct_size == sizeof(newer) && newer.known.added == 8 && newer.unheard == 0);
}

void test_too_small() {
  const Old old = {sizeof(Old) - 1, 7};
  New out = {sizeof(Old) - 1, 0, 0};
  CHECK_INVALID(kad::guard([&] { read(&old); }), "New.struct_size is 7, expected at least 8");
  CHECK_INVALID(kad::guard([&] { write({}, &out); }), "set it to sizeof(New)");
  CHECK_INVALID(kad::guard([] { read(nullptr); }), "New is NULL");
}

}  // namespace

int main() {
  test_reading();
  test_writing();
  test_too_small();
  return check_result();
}
