// SHA-256 on the SHA extensions: _mm_sha256rnds2_epu32 makes two rounds, _mm_sha256msg1/2_epu32 the
// message schedule. The state lies in two registers, ABEF and CDGH, as the instructions want it.
#include <immintrin.h>

#include "runtime/sha256.hpp"

namespace kad {
namespace {

struct State {
  __m128i abef;
  __m128i cdgh;
};

State load_state(const uint32_t state[8]) {
  const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
  const __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1);
  const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1B);
  return {_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xF0)};
}

void store_state(const State& from, uint32_t state[8]) {
  const __m128i feba = _mm_shuffle_epi32(from.abef, 0x1B);
  const __m128i dchg = _mm_shuffle_epi32(from.cdgh, 0xB1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// Four rounds with the words w of the schedule.
void four_rounds(State* s, __m128i w, const uint32_t* constants) {
  const __m128i k = _mm_loadu_si128(reinterpret_cast<const __m128i*>(constants));
  const __m128i words = _mm_add_epi32(w, k);
  s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, words);
  s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(words, 0x0E));
}

// W(t .. t + 3) from the sixteen words before them, w[0] the oldest four.
__m128i next_words(const __m128i w[4]) {
  const __m128i older =
      _mm_add_epi32(_mm_sha256msg1_epu32(w[0], w[1]), _mm_alignr_epi8(w[3], w[2], 4));
  return _mm_sha256msg2_epu32(older, w[3]);
}

void compress(State* state, const uint8_t* block) {
  const __m128i swap = _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203);
  const State before = *state;
  __m128i w[4];
  for (int i = 0; i < 4; ++i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * i));
    w[i] = _mm_shuffle_epi8(bytes, swap);
    four_rounds(state, w[i], kSha256Constants + 4 * i);
  }
  for (int t = 16; t < 64; t += 4) {
    const __m128i next = next_words(w);
    four_rounds(state, next, kSha256Constants + t);
    w[0] = w[1];
    w[1] = w[2];
    w[2] = w[3];
    w[3] = next;
  }
  state->abef = _mm_add_epi32(state->abef, before.abef);
  state->cdgh = _mm_add_epi32(state->cdgh, before.cdgh);
}

}  // namespace

void sha256_blocks_x86(uint32_t state[8], const uint8_t* data, size_t n_blocks) {
  State registers = load_state(state);
  for (size_t i = 0; i < n_blocks; ++i) compress(&registers, data + 64 * i);
  store_state(registers, state);
}

}  // namespace kad
