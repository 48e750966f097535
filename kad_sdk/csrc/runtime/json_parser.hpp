// The parser behind json::Document.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/json.hpp"

namespace kad::json {

/// Raise Error unless the text is well-formed UTF-8 (no overlong forms, no surrogates).
void check_utf8(std::string_view text);

/// A JSON string's characters with the escapes resolved; the text has been parsed.
std::string resolve_escapes(std::string_view text);

/// Four hexadecimal digits as a number.
uint32_t read_hex4(std::string_view digits);

inline bool is_high_surrogate(uint32_t code) { return code >= 0xD800 && code < 0xDC00; }
inline bool is_low_surrogate(uint32_t code) { return code >= 0xDC00 && code < 0xE000; }

/// Fills a document's nodes; raises Error.
class Parser {
 public:
  Parser(std::string_view text, std::vector<Node>* nodes) : text_(text), nodes_(*nodes) {}
  void run();

 private:
  [[noreturn]] void fail(const char* expected) const;
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space();
  bool take(char c);
  uint32_t add(Kind kind, size_t begin);
  void end(uint32_t node);

  void value(int depth);
  void object(int depth);
  void array(int depth);
  void string();
  void escape();
  uint32_t hex4();
  void number();
  size_t digits();
  void word(std::string_view letters, Kind kind);
  void check_keys(uint32_t object) const;

  std::string_view text_;
  std::vector<Node>& nodes_;
  size_t at_ = 0;
};

}  // namespace kad::json
