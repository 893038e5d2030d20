#include "bundle/external.h"

#include <cstdint>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr int kMaxMessageDepth = 100;  // messages in messages, protobuf's own limit

// The messages that lead to a tensor's external_data; all else is skipped.
enum class Message {
  kNone,
  kModel,
  kGraph,
  kNode,
  kAttribute,
  kFunction,
  kTraining,
  kSparseTensor,
  kTensor,
  kEntry,
};

// What field `number` of a message holds, as onnx.proto has them.
Message inner(Message message, uint64_t number) {
  switch (message) {
    case Message::kModel:
      return number == 7    ? Message::kGraph
             : number == 20 ? Message::kTraining
             : number == 25 ? Message::kFunction
                            : Message::kNone;
    case Message::kGraph:
      return number == 1    ? Message::kNode
             : number == 5  ? Message::kTensor
             : number == 15 ? Message::kSparseTensor
                            : Message::kNone;
    case Message::kNode:
      return number == 5 ? Message::kAttribute : Message::kNone;
    case Message::kAttribute:
      return number == 5 || number == 10    ? Message::kTensor
             : number == 6 || number == 11  ? Message::kGraph
             : number == 22 || number == 23 ? Message::kSparseTensor
                                            : Message::kNone;
    case Message::kFunction:
      return number == 7 ? Message::kNode : number == 11 ? Message::kAttribute : Message::kNone;
    case Message::kTraining:
      return number == 1 || number == 2 ? Message::kGraph : Message::kNone;
    case Message::kSparseTensor:
      return number == 1 || number == 2 ? Message::kTensor : Message::kNone;
    case Message::kTensor:
      return number == 13 ? Message::kEntry : Message::kNone;
    default:
      return Message::kNone;
  }
}

// A protobuf message: fields, each a number with a wire type and a value.
class Fields {
 public:
  explicit Fields(std::string_view message) : message_(message) {}

  // The next field that holds bytes; false at the end.
  bool next(uint64_t& number, std::string_view& value) {
    while (at_ < message_.size()) {
      const uint64_t tag = varint(), wire = tag & 7;
      number = tag >> 3;
      if (!number) throw NotOnnx("field number 0");
      if (wire == 0) {
        varint();
      } else if (wire == 2) {
        value = bytes(varint());
        return true;
      } else if (wire == 1 || wire == 5) {
        bytes(wire == 1 ? 8 : 4);
      } else {
        throw NotOnnx(text("wire type ", wire));
      }
    }
    return false;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int k = 0; k < 10 && at_ < message_.size(); ++k) {
      const auto byte = static_cast<unsigned char>(message_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7f) << (7 * k);
      if (byte < 0x80) return value;
    }
    throw NotOnnx("a number is cut off");
  }
  std::string_view bytes(uint64_t size) {
    if (size > message_.size() - at_) throw NotOnnx("a field is cut off");
    const std::string_view value = message_.substr(at_, size);
    at_ += size;
    return value;
  }

  std::string_view message_;
  size_t at_ = 0;
};

}  // namespace

std::set<std::string> external_files(std::string_view content) {
  struct Waiting {
    std::string_view message;
    Message kind;
    int depth;
  };
  std::set<std::string> found;
  std::vector<Waiting> waiting{{content, Message::kModel, 1}};
  while (!waiting.empty()) {
    const Waiting now = waiting.back();
    waiting.pop_back();
    if (now.depth > kMaxMessageDepth) throw NotOnnx(text("messages nested more than ", kMaxMessageDepth, " deep"));
    Fields fields(now.message);
    uint64_t number = 0;
    std::string_view value, key, location;
    while (fields.next(number, value)) {
      if (now.kind == Message::kEntry) {
        if (number == 1) key = value;
        if (number == 2) location = value;
      } else if (const Message kind = inner(now.kind, number); kind != Message::kNone) {
        waiting.push_back({value, kind, now.depth + 1});
      }
    }
    if (now.kind == Message::kEntry && key == "location") found.emplace(location);
  }
  return found;
}

}  // namespace dovit::runtime
