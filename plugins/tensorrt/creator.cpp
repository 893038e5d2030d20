#include "creator.h"

#include <cstring>

namespace dovit {
namespace {

using nvinfer1::PluginFieldType;

// ONNX has 64-bit integers only, and parsers pass them as either.
std::optional<int64_t> integer(const nvinfer1::PluginField& field) {
  if (!field.data || field.length != 1) return std::nullopt;
  if (field.type == PluginFieldType::kINT32) return *static_cast<const int32_t*>(field.data);
  if (field.type == PluginFieldType::kINT64) return *static_cast<const int64_t*>(field.data);
  return std::nullopt;
}

}  // namespace

std::optional<std::vector<int32_t>> read_fields(const Signature& signature, const std::string& layer,
                                                const nvinfer1::PluginFieldCollection* fields) {
  const auto refuse = [&](const std::string& sentence) {
    report(std::string(signature.name) + " " + layer + ": " + sentence);
    return std::nullopt;
  };
  std::vector<int32_t> values;
  for (const Attribute& attribute : signature.attributes) values.push_back(attribute.fallback);
  for (int k = 0; fields && k < fields->nbFields; ++k) {
    const nvinfer1::PluginField& field = fields->fields[k];
    size_t number = 0;
    while (number < values.size() && std::strcmp(signature.attributes[number].name, field.name) != 0) ++number;
    if (number == values.size()) return refuse("it has no field " + std::string(field.name) + "; " + signature.text());
    const Attribute& attribute = signature.attributes[number];
    const auto value = integer(field);
    if (!value || *value < 0 || *value > attribute.largest) {
      return refuse("field " + std::string(attribute.name) + " must be a whole number from 0 to " +
                    std::to_string(attribute.largest) + ": " + attribute.meaning);
    }
    values[number] = static_cast<int32_t>(*value);
  }
  for (size_t k = 0; k < values.size(); ++k) {
    const Attribute& attribute = signature.attributes[k];
    if (values[k] < 0) return refuse("field " + std::string(attribute.name) + " is missing: " + attribute.meaning);
  }
  return values;
}

}  // namespace dovit
