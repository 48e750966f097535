#include "runtime/json.hpp"

#include <charconv>
#include <clocale>
#include <cstdlib>
#include <new>
#include <system_error>

#include "runtime/json_parser.hpp"

namespace kad::json {
namespace {

locale_t make_c_locale() {
  const locale_t made = newlocale(LC_ALL_MASK, "C", nullptr);
  if (made == nullptr) throw std::bad_alloc();
  return made;
}

// Numbers are read in the "C" locale whatever the application has set.
double to_double(const std::string& text) {
  static const locale_t c_locale = make_c_locale();
  return strtod_l(text.c_str(), nullptr, c_locale);
}

void append_utf8(uint32_t code, std::string* out) {
  const auto put = [&](uint32_t byte) { *out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// The escape \uXXXX at `at`, with the second half of a surrogate pair. Returns its length.
size_t append_unicode(std::string_view text, size_t at, std::string* out) {
  const uint32_t code = read_hex4(text.substr(at + 2, 4));
  if (!is_high_surrogate(code)) {
    append_utf8(code, out);
    return 6;
  }
  const uint32_t low = read_hex4(text.substr(at + 8, 4));
  append_utf8(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), out);
  return 12;
}

char simple_escape(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return c;
  }
}

}  // namespace

uint32_t read_hex4(std::string_view digits) {
  uint32_t code = 0;
  for (const char c : digits) {
    const char lower = static_cast<char>(c | 0x20);
    code = code * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : lower - 'a' + 10);
  }
  return code;
}

std::string resolve_escapes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '\\') {
      out += text[i++];
    } else if (text[i + 1] == 'u') {
      i += append_unicode(text, i, &out);
    } else {
      out += simple_escape(text[i + 1]);
      i += 2;
    }
  }
  return out;
}

Document::Document(std::string_view text) : text_(text) {
  check_utf8(text);
  Parser(text, &nodes_).run();
}

std::string_view Value::text() const {
  return document_->text_.substr(node().begin, node().length);
}

std::string Value::string() const {
  return node().escaped ? resolve_escapes(text()) : std::string(text());
}

bool Value::fits(int64_t* value) const {
  const std::string_view digits = text();
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, *value);
  return kind() == Kind::integer && error == std::errc() && stop == end;
}

double Value::number() const { return to_double(std::string(text())); }

std::vector<Value> Value::items() const {
  std::vector<Value> found;
  for (uint32_t i = node_ + 1; i < node().next; i = document_->nodes_[i].next) {
    found.emplace_back(document_, i);
  }
  return found;
}

size_t Value::count() const {
  size_t n = 0;
  for (uint32_t i = node_ + 1; i < node().next; i = document_->nodes_[i].next) ++n;
  return n;
}

std::vector<Value::Member> Value::members() const {
  std::vector<Member> found;
  for (uint32_t i = node_ + 1; i < node().next;) {
    const Value key(document_, i);
    const Value value(document_, i + 1);
    found.push_back({key.string(), value});
    i = value.node().next;
  }
  return found;
}

}  // namespace kad::json
