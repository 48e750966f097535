// Reading a JSON object against a schema: every key, type and range is checked, nothing has a
// default. The rules are those of kad_sdk/schema.py.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/json.hpp"

namespace kad {

/// A value does not fit its schema; the text names the key, what was expected, and the value.
struct SchemaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Bounds of a number; `low` is allowed itself unless `above` is set.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above = false;
};

/// What stays a number above 0, or a finite number, when it becomes a float32.
constexpr float kLargestFloat = std::numeric_limits<float>::max();
constexpr Range kPositiveFloat = {std::numeric_limits<float>::min(), kLargestFloat};
constexpr Range kFloat = {-kLargestFloat, kLargestFloat};

constexpr Range kPositive = {0.0, std::numeric_limits<double>::infinity(), true};
constexpr Range kNonNegative = {0.0};
constexpr Range kShare = {0.0, 1.0};
constexpr Range kFraction = {0.0, 1.0, true};
constexpr int64_t kMaxPixels = 1 << 16;

[[noreturn]] void schema_error(const std::string& path, const std::string& what, json::Value value);

/// One value, called `path` in errors.
int64_t read_integer(json::Value value, const std::string& path, int64_t low,
                     int64_t high = std::numeric_limits<int64_t>::max());
double read_number(json::Value value, const std::string& path, Range range);
/// A non-empty string without control characters.
std::string read_text(json::Value value, const std::string& path);
std::string read_digest(json::Value value, const std::string& path);
std::string read_file_name(json::Value value, const std::string& path);
void check_file_name(const std::string& name, const std::string& path);

/// An item of a list, and what errors call it.
struct Item {
  json::Value value;
  std::string path;
};

/// The items of a list; of one of `length`.
std::vector<Item> read_list(json::Value value, const std::string& path);
std::vector<Item> read_list(json::Value value, const std::string& path, size_t length);

struct Size {
  int32_t height = 0;
  int32_t width = 0;
};

/// The members of an object, taken one by one; `end` refuses those that nobody took.
class Fields {
 public:
  Fields(json::Value object, std::string path, bool allow_unknown);

  json::Value take(const char* key);
  std::string path_of(const char* key) const;

  bool is_null(const char* key);
  Fields object(const char* key);
  std::vector<Item> list(const char* key);
  std::vector<Item> list(const char* key, size_t length);
  std::vector<json::Value::Member> mapping(const char* key);
  int64_t integer(const char* key, int64_t low, int64_t high = std::numeric_limits<int64_t>::max());
  int32_t pixels(const char* key, int64_t most = kMaxPixels);
  Size size(const char* key);
  double number(const char* key, Range range);
  std::optional<double> number_or_null(const char* key, Range range);
  void count_or_null(const char* key);
  std::string text(const char* key);
  std::string digest(const char* key);
  std::string file_name(const char* key);
  /// The position of a string among the allowed ones.
  int32_t choice(const char* key, const std::vector<std::string>& allowed);

  bool allows_unknown() const { return allow_unknown_; }

  /// Raises SchemaError for a key that the schema has not, unless a newer version wrote it.
  void end() const;

 private:
  std::vector<json::Value::Member> members_;
  std::vector<bool> taken_;
  std::string path_;
  bool allow_unknown_;
};

}  // namespace kad
