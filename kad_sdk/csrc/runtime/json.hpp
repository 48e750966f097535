// Strict JSON (RFC 8259), read-only, with the rules of kad_sdk.storage.strict_json.
//
// UTF-8 only, no comments, no trailing commas, no NaN or Infinity, no key twice, no lone surrogate,
// at most 64 levels.
// Values are 16-byte nodes over the caller's text, so a hostile file of many small values stays
// within a few times its own size.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kad::json {

/// What is wrong with a text, and at which byte.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Kind : uint8_t { null, boolean, integer, real, string, array, object };

struct Node {
  Kind kind = Kind::null;
  bool escaped = false;  // a string with backslashes
  uint32_t begin = 0;    // text: a string without its quotes
  uint32_t length = 0;
  uint32_t next = 0;  // the node after this one and all inside it
};

class Value;

/// A parsed text. The text has to stay in place for as long as the document lives.
class Document {
 public:
  /// Raises Error.
  explicit Document(std::string_view text);
  Value root() const;

 private:
  friend class Value;
  std::string_view text_;
  std::vector<Node> nodes_;  // in the order of the text; a key is a node before its value
};

class Value {
 public:
  Value(const Document* document, uint32_t node) : document_(document), node_(node) {}

  Kind kind() const { return node().kind; }
  bool is_number() const { return kind() == Kind::integer || kind() == Kind::real; }

  /// The value as it stands in the text.
  std::string_view text() const;
  /// A string, its escapes resolved.
  std::string string() const;
  /// Whether an integer fits 64 bits, and if so, its value.
  bool fits(int64_t* value) const;
  /// A number as the nearest double; infinite when it is too large.
  double number() const;

  /// The values of an array, and how many they are.
  std::vector<Value> items() const;
  size_t count() const;

  struct Member;
  /// The members of an object, in the order of the text.
  std::vector<Member> members() const;

 private:
  const Node& node() const { return document_->nodes_[node_]; }

  const Document* document_;
  uint32_t node_;
};

struct Value::Member {
  std::string key;
  Value value;
};

inline Value Document::root() const { return {this, 0}; }

}  // namespace kad::json
