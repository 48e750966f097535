// Texts of files in errors: nobody knows how long they are.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kad {

/// Whether a byte of UTF-8 is not the first of its character.
inline bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

/// At most `most` bytes of a text, no half of a character, and "..." for what is left out.
inline std::string shortened(std::string_view text, size_t most = 80) {
  constexpr std::string_view kMore = "...";
  if (text.size() <= most) return std::string(text);
  size_t end = most - kMore.size();
  while (end > 0 && continues_character(text[end])) --end;
  return std::string(text.substr(0, end)).append(kMore);
}

}  // namespace kad
