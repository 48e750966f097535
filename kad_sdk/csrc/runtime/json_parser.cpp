#include "runtime/json_parser.hpp"

#include <algorithm>
#include <cstdint>

#include "base/text.hpp"

namespace kad::json {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxDigits = 4300;  // as Python reads integers
constexpr size_t kMaxBytes = size_t{1} << 30;

// Bytes of the UTF-8 sequence at the front of the text, 0 when it is malformed (Unicode 15, table
// 3-7: the second byte's range excludes overlong forms, surrogates and what is above U+10FFFF).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

void check_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text.substr(i, 4));
    if (length == 0) throw Error("not UTF-8 at byte " + std::to_string(i));
    i += length;
  }
}

void Parser::run() {
  if (text_.size() > kMaxBytes) throw Error("larger than " + std::to_string(kMaxBytes) + " bytes");
  value(0);
  skip_space();
  if (at_ != text_.size()) fail("the end of the text");
}

void Parser::fail(const char* expected) const {
  throw Error("not JSON: expected " + std::string(expected) + " at byte " + std::to_string(at_));
}

void Parser::skip_space() {
  while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) < 4) ++at_;
}

bool Parser::take(char c) {
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

uint32_t Parser::add(Kind kind, size_t begin) {
  Node node;
  node.kind = kind;
  node.begin = static_cast<uint32_t>(begin);
  nodes_.push_back(node);
  return static_cast<uint32_t>(nodes_.size() - 1);
}

// The text read so far from the node's begin on is the node's.
void Parser::end(uint32_t node) {
  nodes_[node].length = static_cast<uint32_t>(at_ - nodes_[node].begin);
  nodes_[node].next = static_cast<uint32_t>(nodes_.size());
}

void Parser::value(int depth) {
  if (depth > kMaxDepth) throw Error("the JSON is nested too deeply");
  skip_space();
  switch (peek()) {
    case '{':
      return object(depth);
    case '[':
      return array(depth);
    case '"':
      return string();
    case 't':
      return word("true", Kind::boolean);
    case 'f':
      return word("false", Kind::boolean);
    case 'n':
      return word("null", Kind::null);
    default:
      return number();
  }
}

void Parser::object(int depth) {
  const uint32_t node = add(Kind::object, at_++);
  skip_space();
  while (!take('}')) {
    if (nodes_.size() > node + 1 && !take(',')) fail("',' or '}'");
    skip_space();
    if (peek() != '"') fail("a key in double quotes");
    string();
    skip_space();
    if (!take(':')) fail("':'");
    value(depth + 1);
    skip_space();
  }
  end(node);
  check_keys(node);
}

void Parser::array(int depth) {
  const uint32_t node = add(Kind::array, at_++);
  skip_space();
  while (!take(']')) {
    if (nodes_.size() > node + 1 && !take(',')) fail("',' or ']'");
    value(depth + 1);
    skip_space();
  }
  end(node);
}

void Parser::string() {
  const uint32_t node = add(Kind::string, at_ + 1);
  ++at_;
  while (peek() != '"') {
    if (at_ >= text_.size() || static_cast<unsigned char>(text_[at_]) < 0x20) {
      fail("a string without control characters, ended by a double quote");
    }
    if (text_[at_] == '\\') {
      nodes_[node].escaped = true;
      escape();
    } else {
      ++at_;
    }
  }
  end(node);
  ++at_;
}

void Parser::escape() {
  ++at_;
  if (take('u')) {
    const uint32_t code = hex4();
    if (is_low_surrogate(code)) fail("a high surrogate before a low one");
    if (is_high_surrogate(code)) {
      const bool pair = take('\\') && take('u') && is_low_surrogate(hex4());
      if (!pair) fail("a low surrogate after a high one");
    }
    return;
  }
  if (peek() == '\0' || std::string_view("\"\\/bfnrt").find(peek()) == std::string_view::npos) {
    fail("one of \" \\ / b f n r t u after a backslash");
  }
  ++at_;
}

uint32_t Parser::hex4() {
  for (size_t i = at_; i < at_ + 4; ++i) {
    if (i >= text_.size() || !is_hex(text_[i])) fail("four hexadecimal digits");
  }
  const uint32_t code = read_hex4(text_.substr(at_, 4));
  at_ += 4;
  return code;
}

void Parser::number() {
  const uint32_t node = add(Kind::integer, at_);
  take('-');
  const bool zero = peek() == '0';
  const size_t n = digits();
  if (n == 0) fail("a value");
  if (zero && n > 1) fail("a number without leading zeros");
  if (take('.')) {
    nodes_[node].kind = Kind::real;
    if (digits() == 0) fail("a digit");
  }
  if (peek() == 'e' || peek() == 'E') {
    nodes_[node].kind = Kind::real;
    ++at_;
    if (!take('+')) take('-');
    if (digits() == 0) fail("a digit");
  }
  if (nodes_[node].kind == Kind::integer && n > kMaxDigits) fail("fewer digits");
  end(node);
}

size_t Parser::digits() {
  const size_t begin = at_;
  while (is_digit(peek())) ++at_;
  return at_ - begin;
}

void Parser::word(std::string_view letters, Kind kind) {
  const uint32_t node = add(kind, at_);
  if (text_.substr(at_, letters.size()) != letters) fail("a value");
  at_ += letters.size();
  end(node);
}

void Parser::check_keys(uint32_t object) const {
  std::vector<std::string> keys;
  for (uint32_t i = object + 1; i < nodes_.size(); i = nodes_[i + 1].next) {
    const std::string_view text = text_.substr(nodes_[i].begin, nodes_[i].length);
    keys.push_back(nodes_[i].escaped ? resolve_escapes(text) : std::string(text));
  }
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end()) throw Error("the key '" + shortened(*twice) + "' is given twice");
}

}  // namespace kad::json
