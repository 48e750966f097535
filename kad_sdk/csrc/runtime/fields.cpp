#include "runtime/fields.hpp"

#include <cmath>
#include <cstdio>
#include <utility>

#include "base/text.hpp"

namespace kad {

using json::Kind;
using json::Value;

namespace {

bool is_file_character(char c, bool first) {
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const bool word = letter || (c >= '0' && c <= '9') || c == '_';
  return word || (!first && (c == '.' || c == '-'));
}

bool is_file_name(const std::string& name) {
  if (name.empty() || name.size() > 128 || !is_file_character(name[0], true)) return false;
  for (const char c : name) {
    if (!is_file_character(c, false)) return false;
  }
  return true;
}

std::string to_text(double number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", number);
  return text;
}

std::string to_text(Range range) {
  const std::string text =
      (range.above ? "a number above " : "a number at least ") + to_text(range.low);
  return std::isinf(range.high) ? text : text + " and at most " + to_text(range.high);
}

}  // namespace

void schema_error(const std::string& path, const std::string& what, Value value) {
  throw SchemaError(path + ": expected " + what + ", got " + shortened(value.text()));
}

int64_t read_integer(Value value, const std::string& path, int64_t low, int64_t high) {
  int64_t number = 0;
  if (!value.fits(&number)) schema_error(path, "an integer of 64 bits", value);
  if (number < low || number > high) {
    schema_error(path, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
                 value);
  }
  return number;
}

double read_number(Value value, const std::string& path, Range range) {
  const double number = value.is_number() ? value.number() : std::nan("");
  if (!std::isfinite(number)) schema_error(path, "a finite number", value);
  const bool above = range.above ? number > range.low : number >= range.low;
  if (!above || number > range.high) schema_error(path, to_text(range), value);
  return number;
}

std::string read_text(Value value, const std::string& path) {
  if (value.kind() != Kind::string) schema_error(path, "a string", value);
  std::string text = value.string();
  bool good = !text.empty();
  for (const char c : text) good &= static_cast<unsigned char>(c) >= 0x20;
  if (!good) schema_error(path, "a non-empty string without control characters", value);
  return text;
}

std::string read_digest(Value value, const std::string& path) {
  std::string text = value.kind() == Kind::string ? value.string() : "";
  const bool good =
      text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!good) schema_error(path, "64 hexadecimal digits", value);
  return text;
}

void check_file_name(const std::string& name, const std::string& path) {
  if (is_file_name(name)) return;
  throw SchemaError(path +
                    ": expected a plain file name of letters, digits, '_', '-' and '.', not "
                    "beginning with '.', got " +
                    shortened(name));
}

std::string read_file_name(Value value, const std::string& path) {
  if (value.kind() != Kind::string) schema_error(path, "a string", value);
  std::string name = value.string();
  check_file_name(name, path);
  return name;
}

std::vector<Item> read_list(Value value, const std::string& path) {
  if (value.kind() != Kind::array) schema_error(path, "a list", value);
  std::vector<Item> items;
  for (const Value item : value.items()) {
    items.push_back({item, path + "[" + std::to_string(items.size()) + "]"});
  }
  return items;
}

std::vector<Item> read_list(Value value, const std::string& path, size_t length) {
  if (value.kind() != Kind::array) schema_error(path, "a list", value);
  // Before they are read: of a hostile file there may be millions, each with a path of its own.
  if (value.count() != length) schema_error(path, std::to_string(length) + " items", value);
  return read_list(value, path);
}

Fields::Fields(Value object, std::string path, bool allow_unknown)
    : path_(std::move(path)), allow_unknown_(allow_unknown) {
  if (object.kind() != Kind::object) schema_error(path_, "an object", object);
  members_ = object.members();
  taken_.resize(members_.size());
}

std::string Fields::path_of(const char* key) const {
  return path_.empty() ? key : path_ + "." + key;
}

Value Fields::take(const char* key) {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].key != key) continue;
    taken_[i] = true;
    return members_[i].value;
  }
  throw SchemaError("the key " + path_of(key) + " is missing");
}

Fields Fields::object(const char* key) { return {take(key), path_of(key), allow_unknown_}; }

bool Fields::is_null(const char* key) { return take(key).kind() == Kind::null; }

std::vector<Item> Fields::list(const char* key) { return read_list(take(key), path_of(key)); }

std::vector<Item> Fields::list(const char* key, size_t length) {
  return read_list(take(key), path_of(key), length);
}

std::vector<Value::Member> Fields::mapping(const char* key) {
  const Value value = take(key);
  if (value.kind() != Kind::object) schema_error(path_of(key), "an object", value);
  return value.members();
}

Size Fields::size(const char* key) {
  const std::vector<Item> sides = list(key, 2);
  return {static_cast<int32_t>(read_integer(sides[0].value, sides[0].path, 1, kMaxPixels)),
          static_cast<int32_t>(read_integer(sides[1].value, sides[1].path, 1, kMaxPixels))};
}

std::optional<double> Fields::number_or_null(const char* key, Range range) {
  if (is_null(key)) return std::nullopt;
  return number(key, range);
}

void Fields::count_or_null(const char* key) {
  if (!is_null(key)) integer(key, 1);
}

int64_t Fields::integer(const char* key, int64_t low, int64_t high) {
  return read_integer(take(key), path_of(key), low, high);
}

int32_t Fields::pixels(const char* key, int64_t most) {
  return static_cast<int32_t>(integer(key, 1, most));
}

double Fields::number(const char* key, Range range) {
  return read_number(take(key), path_of(key), range);
}

std::string Fields::text(const char* key) { return read_text(take(key), path_of(key)); }

std::string Fields::digest(const char* key) { return read_digest(take(key), path_of(key)); }

std::string Fields::file_name(const char* key) { return read_file_name(take(key), path_of(key)); }

int32_t Fields::choice(const char* key, const std::vector<std::string>& allowed) {
  const Value value = take(key);
  std::string words;
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (value.kind() == Kind::string && value.string() == allowed[i]) {
      return static_cast<int32_t>(i);
    }
    words += (i == 0 ? "'" : " or '") + allowed[i] + "'";
  }
  schema_error(path_of(key), words, value);
}

void Fields::end() const {
  for (size_t i = 0; i < members_.size() && !allow_unknown_; ++i) {
    if (taken_[i]) continue;
    throw SchemaError("unknown key " + path_of(shortened(members_[i].key).c_str()) +
                      ": this format version has no such key");
  }
}

}  // namespace kad
