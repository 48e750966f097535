#include "runtime/sha256.hpp"

#include <cstring>

#if KAD_X86_LEVELS
#include <cpuid.h>
#endif

namespace kad {

const uint32_t kSha256Constants[64] = {
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2};

namespace {

constexpr size_t kBlockBytes = 64;
constexpr uint32_t kStart[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

uint32_t rotate(uint32_t value, int by) { return (value >> by) | (value << (32 - by)); }

uint32_t big_endian(const uint8_t* bytes) {
  return (uint32_t{bytes[0]} << 24) | (uint32_t{bytes[1]} << 16) | (uint32_t{bytes[2]} << 8) |
         uint32_t{bytes[3]};
}

void make_schedule(const uint8_t* block, uint32_t w[64]) {
  for (int t = 0; t < 16; ++t) w[t] = big_endian(block + 4 * t);
  for (int t = 16; t < 64; ++t) {
    const uint32_t a = w[t - 15];
    const uint32_t b = w[t - 2];
    const uint32_t sigma0 = rotate(a, 7) ^ rotate(a, 18) ^ (a >> 3);
    const uint32_t sigma1 = rotate(b, 17) ^ rotate(b, 19) ^ (b >> 10);
    w[t] = w[t - 16] + sigma0 + w[t - 7] + sigma1;
  }
}

void compress(uint32_t state[8], const uint8_t* block) {
  uint32_t w[64];
  make_schedule(block, w);
  uint32_t s[8];  // a to h
  std::memcpy(s, state, sizeof(s));
  for (int t = 0; t < 64; ++t) {
    const uint32_t sum1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
    const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
    const uint32_t first = s[7] + sum1 + choice + kSha256Constants[t] + w[t];
    const uint32_t sum0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
    const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    for (int i = 7; i > 0; --i) s[i] = s[i - 1];
    s[4] += first;
    s[0] = first + sum0 + majority;
  }
  for (int i = 0; i < 8; ++i) state[i] += s[i];
}

Sha256Blocks best_blocks() {
#if KAD_X86_LEVELS
  if (has_sha_instructions()) return sha256_blocks_x86;
#endif
  return sha256_blocks_scalar;
}

// The rest of the message, the bit 1, zeros, and the length in bits, as one or two blocks.
size_t make_tail(const uint8_t* rest, size_t n_rest, uint64_t total, uint8_t tail[128]) {
  std::memset(tail, 0, 2 * kBlockBytes);
  if (n_rest > 0) std::memcpy(tail, rest, n_rest);
  tail[n_rest] = 0x80;
  const size_t n_blocks = n_rest + 9 <= kBlockBytes ? 1 : 2;
  for (size_t i = 0; i < 8; ++i) {
    tail[n_blocks * kBlockBytes - 1 - i] = static_cast<uint8_t>((total * 8) >> (8 * i));
  }
  return n_blocks;
}

}  // namespace

void sha256_blocks_scalar(uint32_t state[8], const uint8_t* data, size_t n_blocks) {
  for (size_t i = 0; i < n_blocks; ++i) compress(state, data + i * kBlockBytes);
}

bool has_sha_instructions() {
#if KAD_X86_LEVELS
  uint32_t a = 0, b = 0, c = 0, d = 0;
  constexpr uint32_t kSsse3 = 1u << 9, kSse41 = 1u << 19, kSha = 1u << 29;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kSsse3) == 0 || (c & kSse41) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & kSha) != 0;
#else
  return false;
#endif
}

std::string sha256_hex_with(Sha256Blocks blocks, const uint8_t* data, size_t size) {
  uint32_t state[8];
  std::memcpy(state, kStart, sizeof(state));
  const size_t whole = size / kBlockBytes;
  blocks(state, data, whole);
  uint8_t tail[2 * kBlockBytes];
  const size_t n_rest = size - whole * kBlockBytes;
  const uint8_t* rest = n_rest > 0 ? data + whole * kBlockBytes : nullptr;
  const size_t n_tail = make_tail(rest, n_rest, size, tail);
  blocks(state, tail, n_tail);
  std::string hex;
  for (const uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[(word >> shift) & 15];
  }
  return hex;
}

std::string sha256_hex(const uint8_t* data, size_t size) {
  static const Sha256Blocks blocks = best_blocks();
  return sha256_hex_with(blocks, data, size);
}

}  // namespace kad
