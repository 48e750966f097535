// An index as bytes: what takes long to build, kept with the bank.
//
// The bytes are a function of the bank and of the layout of its maps alone: they are made by
// Level::scalar, whose arithmetic is the same everywhere, and taken in at any level. They hold the
// SHA-256 of the file that the bank lies in (64 hexadecimal digits), so that they are not used with
// another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "search/index.hpp"

namespace kad {

/// The index's bank as an index of Level::scalar, written; empty where that has no codes.
std::vector<uint8_t> store_index(const kad_index& index, const char* bank_sha256,
                                 int32_t n_threads);

/// No fewer bytes than store_index gives for this index.
int64_t most_stored_bytes(const kad_index& index);

/// The index that was stored for this bank; built anew where another version of libkad stored it.
/// Raises KAD_ERROR_ARTIFACT_TENSORS for bytes of another bank or layout, and for damaged ones.
std::unique_ptr<kad_index> restore_index(const float* bank, int64_t rows, const SplitLayout& layout,
                                         const char* bank_sha256, const uint8_t* stored,
                                         size_t size, int32_t n_threads);

}  // namespace kad
