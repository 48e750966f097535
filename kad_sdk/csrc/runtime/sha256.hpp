// SHA-256 (FIPS 180-4), on the processor's own instructions where it has them.
//
// Written here, not linked: the library that C applications ship should need nothing but the C++
// runtime, and an application may bring any version of OpenSSL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kad {

/// The digest of `size` bytes as 64 hexadecimal digits.
std::string sha256_hex(const uint8_t* data, size_t size);

/// Process n_blocks blocks of 64 bytes.
using Sha256Blocks = void (*)(uint32_t state[8], const uint8_t* data, size_t n_blocks);

void sha256_blocks_scalar(uint32_t state[8], const uint8_t* data, size_t n_blocks);
void sha256_blocks_x86(uint32_t state[8], const uint8_t* data, size_t n_blocks);  // SHA, SSE4.1

/// The round constants K.
extern const uint32_t kSha256Constants[64];

/// As sha256_hex, with the given implementation: for the test that compares the two.
std::string sha256_hex_with(Sha256Blocks blocks, const uint8_t* data, size_t size);

/// Whether the processor has the instructions of sha256_blocks_x86.
bool has_sha_instructions();

}  // namespace kad
