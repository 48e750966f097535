#include "search/stored_index.hpp"

#include <algorithm>
#include <cstring>

#include "base/guard.hpp"

namespace kad {
namespace {

constexpr char kMagic[8] = {'k', 'a', 'd', 'i', 'n', 'd', 'e', 'x'};

// To be raised with every change of what is stored, of how it is computed or of what it means.
constexpr int64_t kVersion = 1;

constexpr size_t kDigestLength = 64;

struct Header {
  char magic[8];
  int64_t version;
  char bank_sha256[kDigestLength];
  int64_t rows;
  int64_t dims;
  int64_t coarse_first;
  int64_t coarse_dims;
};
static_assert(sizeof(Header) == 112, "no padding");

Header header_of(int64_t rows, const SplitLayout& layout, const char* bank_sha256) {
  Header header = {};
  std::copy_n(kMagic, sizeof(kMagic), header.magic);
  header.version = kVersion;
  std::copy_n(bank_sha256, kDigestLength, header.bank_sha256);
  header.rows = rows;
  header.dims = layout.dims();
  header.coarse_first = layout.coarse_first();
  header.coarse_dims = layout.coarse_dims();
  return header;
}

void check_digest(const char* digest) {
  check_pointer(digest, "bank_sha256");
  if (std::strlen(digest) == kDigestLength) return;
  fail(KAD_ERROR_INVALID_ARGUMENT, "bank_sha256 must have %zu hexadecimal digits, got %zu",
       kDigestLength, std::strlen(digest));
}

void check_header(const Header& found, const Header& wanted) {
  if (std::memcmp(found.bank_sha256, wanted.bank_sha256, kDigestLength) != 0) {
    fail(KAD_ERROR_ARTIFACT_TENSORS,
         "the stored index is that of another bank: the SHA-256 in it is not that of the bank's "
         "file; export the artifact again");
  }
  if (std::memcmp(&found, &wanted, sizeof(Header)) == 0) return;
  fail(KAD_ERROR_ARTIFACT_TENSORS,
       "the stored index is of a bank (%lld, %lld) with coarse dimensions from %lld on, %lld of "
       "them; expected (%lld, %lld), from %lld on, %lld; export the artifact again",
       static_cast<long long>(found.rows), static_cast<long long>(found.dims),
       static_cast<long long>(found.coarse_first), static_cast<long long>(found.coarse_dims),
       static_cast<long long>(wanted.rows), static_cast<long long>(wanted.dims),
       static_cast<long long>(wanted.coarse_first), static_cast<long long>(wanted.coarse_dims));
}

}  // namespace

std::vector<uint8_t> store_index(const kad_index& index, const char* bank_sha256,
                                 int32_t n_threads) {
  const kad_index portable(index.bank, index.rows, index.layout, Level::scalar, n_threads);
  if (!portable.sieve) return {};
  ByteWriter out;
  out.put(header_of(index.rows, index.layout, bank_sha256));
  out.put(portable.centre.data(), portable.centre.size());
  out.put(portable.row_terms.data(), static_cast<size_t>(portable.rows));
  portable.sieve->store(out);
  return out.bytes();
}

int64_t most_stored_bytes(const kad_index& index) {
  if (!index.sieve) return 0;
  const int64_t own = static_cast<int64_t>(sizeof(Header) + sizeof(float)) +
                      static_cast<int64_t>(sizeof(float)) * (index.dims + index.rows);
  return own + 3 * static_cast<int64_t>(kArrayAlignment) + index.sieve->most_stored_bytes();
}

std::unique_ptr<kad_index> restore_index(const float* bank, int64_t rows, const SplitLayout& layout,
                                         const char* bank_sha256, const uint8_t* stored,
                                         size_t size, int32_t n_threads) {
  if (reinterpret_cast<uintptr_t>(stored) % alignof(int64_t) != 0) {
    fail(KAD_ERROR_ARTIFACT_TENSORS,
         "the stored index must begin at a multiple of %zu bytes; export the artifact again",
         alignof(int64_t));
  }
  ByteReader bytes(stored, size);
  const Header header = *bytes.take<Header>(1);
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    fail(KAD_ERROR_ARTIFACT_TENSORS,
         "the stored index does not begin like one; export the artifact again");
  }
  if (header.version != kVersion) {
    return std::make_unique<kad_index>(bank, rows, layout, current_level(), n_threads);
  }
  check_header(header, header_of(rows, layout, bank_sha256));
  auto index = std::make_unique<kad_index>(bank, rows, layout, bytes, n_threads);
  if (bytes.left() == 0) return index;
  fail(KAD_ERROR_ARTIFACT_TENSORS,
       "the stored index is followed by %zu bytes more; export the artifact again", bytes.left());
}

}  // namespace kad

extern "C" {

kad_status kad_index_store(const kad_index* index, const char* bank_sha256, int32_t n_threads,
                           uint8_t* out, int64_t capacity, int64_t* out_bytes) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    kad::check_digest(bank_sha256);
    kad::check_pointer(out_bytes, "out_bytes");
    kad::check_threads(n_threads);
    *out_bytes = kad::most_stored_bytes(*index);
    if (*out_bytes == 0) return;
    kad::check_room(capacity, *out_bytes, "out", "bytes");
    kad::check_pointer(out, "out");
    const std::vector<uint8_t> stored = kad::store_index(*index, bank_sha256, n_threads);
    std::copy(stored.begin(), stored.end(), out);
    *out_bytes = static_cast<int64_t>(stored.size());
  });
}

kad_status kad_index_create_stored(const float* bank, int64_t rows, const kad_base_maps* maps,
                                   const char* bank_sha256, const uint8_t* stored,
                                   int64_t stored_bytes, int32_t n_threads, kad_index** out_index) {
  return kad::guard([&] {
    kad::check_pointer(out_index, "out_index");
    *out_index = nullptr;
    kad::check_pointer(bank, "bank");
    kad::check_digest(bank_sha256);
    kad::check_pointer(stored, "stored");
    kad::check_threads(n_threads);
    kad::check_count(stored_bytes, 1, "stored_bytes");
    const kad::SplitLayout layout = kad::layout_of(maps);
    kad::check_bank_shape(rows, layout.dims());
    *out_index = kad::restore_index(bank, rows, layout, bank_sha256, stored,
                                    static_cast<size_t>(stored_bytes), n_threads)
                     .release();
  });
}

}  // extern "C"
