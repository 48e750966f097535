// The readers' own JSON and SHA-256, for a test that compares them with Python's:
//   read_back json    documents on stdin, each after its length in 4 bytes; a line for each
//   read_back sha256  any bytes on stdin; for each prefix a line with the digest of each
//   implementation
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>

#include "runtime/json.hpp"
#include "runtime/sha256.hpp"

namespace {

using kad::json::Kind;
using kad::json::Value;

std::string hex(const std::string& text) {
  std::string out = "s";
  char digits[3];
  for (const char c : text) {
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned char>(c));
    out += digits;
  }
  return out;
}

// The bits of a double.
std::string number(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  char text[20];
  std::snprintf(text, sizeof(text), "d%016llx", static_cast<unsigned long long>(bits));
  return text;
}

std::string dump(Value value) {
  std::string text;
  int64_t integer = 0;
  switch (value.kind()) {
    case Kind::object:
      for (const auto& [key, item] : value.members()) text += hex(key) + ":" + dump(item) + ",";
      return "{" + text + "}";
    case Kind::array:
      for (const Value item : value.items()) text += dump(item) + ",";
      return "[" + text + "]";
    case Kind::string:
      return hex(value.string());
    case Kind::integer:
      return value.fits(&integer) ? "i" + std::to_string(integer) : "big";
    case Kind::real:
      return number(value.number());
    case Kind::boolean:
    case Kind::null:
      break;
  }
  return std::string(value.text());
}

void read_json(const std::string& input) {
  for (size_t at = 0; at + 4 <= input.size();) {
    uint32_t length = 0;
    std::memcpy(&length, input.data() + at, sizeof(length));
    const std::string text = input.substr(at + 4, length);
    at += 4 + length;
    try {
      const kad::json::Document document(text);
      std::cout << dump(document.root()) << "\n";
    } catch (const kad::json::Error&) {
      std::cout << "refused\n";
    }
  }
}

void read_sha256(const std::string& input) {
  const auto* data = reinterpret_cast<const uint8_t*>(input.data());
  for (size_t n = 0; n <= input.size(); ++n) {
    std::cout << kad::sha256_hex_with(kad::sha256_blocks_scalar, data, n) << " ";
    std::cout << kad::sha256_hex(data, n) << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 1;
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  std::strcmp(argv[1], "json") == 0 ? read_json(input) : read_sha256(input);
  return 0;
}
