// Shapes, types and formats, which the builder queries before it builds.
#include "expressions.h"
#include "library.h"

namespace {

using nvinfer1::DataType;
using Shapes = std::vector<std::vector<int64_t>>;
using Types = std::vector<DataType>;

struct Node {
  const char* kind;
  std::vector<Field> fields;
  Shapes inputs, outputs;
  Types input_types, output_types;  // with float32 tokens
};

// 2 images, 5 of 9 tokens left, of which 3 stay; 8 channels, a class token.
const std::vector<Node> nodes{
    {"TokenDecide",
     {{"fixed_capacity", 1}},
     {{2, 5}, {}, {4}},
     {{2, 5}, {}},
     {DataType::kFLOAT, DataType::kFLOAT, DataType::kINT64},
     {DataType::kINT32, DataType::kINT32}},
    {"TokenGather",
     {{"prefix", 1}},
     {{2, 6, 8}, {2, 5}, {2, 9, 8}, {2, 8}, {1}, {2, 3}},
     {{2, 4, 8}, {2, 3}, {2, 9, 8}, {2, 8}, {1}},
     {DataType::kFLOAT, DataType::kINT32, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT64, DataType::kINT32},
     {DataType::kFLOAT, DataType::kINT32, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT64}},
    {"TokenReconstruct",
     {{"prefix", 1}},
     {{2, 9, 8}, {2, 6, 8}, {2, 5}},
     {{2, 9, 8}},
     {DataType::kFLOAT, DataType::kFLOAT, DataType::kINT32},
     {DataType::kFLOAT}},
};

std::vector<int64_t> values(const nvinfer1::DimsExprs& shape) {
  std::vector<int64_t> values;
  for (int32_t k = 0; k < shape.nbDims; ++k) values.push_back(size_of(shape.d[k]).value);
  return values;
}

void known_shapes(Library& library, const Node& node) {
  const Plugin plugin = make(library, node.kind, node.fields);
  Expressions expressions;
  std::vector<nvinfer1::DimsExprs> inputs, outputs(node.outputs.size());
  for (const auto& shape : node.inputs) inputs.push_back(expressions.shape(shape));
  const auto count = static_cast<int32_t>(inputs.size()), output_count = static_cast<int32_t>(outputs.size());
  CHECK_EQUAL(plugin.build()->getNbOutputs(), output_count);
  CHECK_EQUAL(
      plugin.build()->getOutputShapes(inputs.data(), count, nullptr, 0, outputs.data(), output_count, expressions), 0);
  for (size_t k = 0; k < outputs.size(); ++k) CHECK(values(outputs[k]) == node.outputs[k]);
  CHECK_EQUAL(library.recorder.said(), "");

  CHECK(plugin.build()->getOutputShapes(inputs.data(), count - 1, nullptr, 0, outputs.data(), output_count,
                                        expressions) != 0);
  const std::string said = library.recorder.said();
  CHECK(said.find("inputs and") != std::string::npos && said.find(node.kind + std::string(" <")) != std::string::npos);
  inputs[0].nbDims += 1;
  CHECK(plugin.build()->getOutputShapes(inputs.data(), count, nullptr, 0, outputs.data(), output_count, expressions) !=
        0);
  CHECK(library.recorder.said().find("dimensions, but needs") != std::string::npos);
}

void data_dependent_shape(Library& library) {
  const Plugin plugin = make(library, "TokenDecide", {});
  Expressions expressions;
  const std::vector<nvinfer1::DimsExprs> inputs{expressions.shape({2, 5}), expressions.shape({}),
                                                expressions.shape({4})};
  nvinfer1::DimsExprs outputs[2];
  CHECK_EQUAL(plugin.build()->getOutputShapes(inputs.data(), 3, nullptr, 0, outputs, 2, expressions), 0);
  CHECK_EQUAL(outputs[0].nbDims, 2);
  CHECK_EQUAL(size_of(outputs[0].d[0]).value, 2);
  const Size& kept = size_of(outputs[0].d[1]);
  CHECK(kept.isSizeTensor());
  CHECK_EQUAL(kept.output, 1);
  CHECK_EQUAL(kept.value, 3);
  CHECK_EQUAL(kept.largest, 5);
  CHECK_EQUAL(outputs[1].nbDims, 0);  // a size tensor has no dimensions
}

void types(Library& library, const Node& node) {
  const Plugin plugin = make(library, node.kind, node.fields);
  for (const DataType tokens : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    const bool has_tokens = node.kind != std::string("TokenDecide");
    const auto of = [&](const Types& given, const Shapes& shapes) {
      Types result = given;
      for (size_t k = 0; k < given.size(); ++k)
        if (has_tokens && shapes[k].size() == 3) result[k] = tokens;  // sequences have three dimensions
      return result;
    };
    const Types inputs = of(node.input_types, node.inputs), expected = of(node.output_types, node.outputs);
    Types found(expected.size());
    CHECK_EQUAL(plugin.build()->getOutputDataTypes(found.data(), static_cast<int32_t>(found.size()), inputs.data(),
                                                   static_cast<int32_t>(inputs.size())),
                0);
    CHECK(found == expected);

    // the builder asks position by position: right is the one type, or any of three where it is the first of the tokens
    std::vector<nvinfer1::DynamicPluginTensorDesc> tensors(inputs.size() + expected.size());
    const auto count = static_cast<int32_t>(inputs.size()), output_count = static_cast<int32_t>(expected.size());
    bool first = has_tokens;
    for (int32_t position = 0; position < count + output_count; ++position) {
      const auto at = static_cast<size_t>(position);
      const DataType right = at < inputs.size() ? inputs[at] : expected[at - inputs.size()];
      const auto& shape = at < inputs.size() ? node.inputs[at] : node.outputs[at - inputs.size()];
      const bool free = first && shape.size() == 3;
      for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32, DataType::kBOOL,
                                  DataType::kUINT8, DataType::kFP8, DataType::kBF16, DataType::kINT64}) {
        const bool is_float = type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
        tensors[at].desc = desc(type, shape);
        CHECK_EQUAL(plugin.build()->supportsFormatCombination(position, tensors.data(), count, output_count),
                    free ? is_float : type == right);
      }
      tensors[at].desc = desc(right, shape);
      tensors[at].desc.format = nvinfer1::TensorFormat::kHWC8;
      CHECK(!plugin.build()->supportsFormatCombination(position, tensors.data(), count, output_count));
      tensors[at].desc = desc(right, shape);
      if (free) first = false;
    }
  }
  CHECK_EQUAL(library.recorder.said(), "");
}

}  // namespace

int main(int, char** arguments) {
  Library library(arguments[1]);
  for (const Node& node : nodes) {
    known_shapes(library, node);
    types(library, node);
  }
  data_dependent_shape(library);
  return verdict();
}
