// Creators: their names, the fields that they take, and their errors for invalid ones.
#include "library.h"

namespace {

void names(Library& library) {
  const char* const expected[] = {"TokenDecide", "TokenGather", "TokenReconstruct"};
  const std::vector<std::string> attributes[] = {
      {"fixed_capacity"}, {"prefix", "merge", "cell_side", "columns"}, {"prefix"}};
  const auto creators = library.creators();
  CHECK_EQUAL(creators.size(), 3u);
  for (size_t k = 0; k < creators.size(); ++k) {
    CHECK_EQUAL(std::string(creators[k]->getPluginName()), expected[k]);
    CHECK_EQUAL(std::string(creators[k]->getPluginVersion()), "1");
    CHECK_EQUAL(std::string(creators[k]->getPluginNamespace()), "dovit");
    CHECK_EQUAL(std::string(creators[k]->getInterfaceInfo().kind), "PLUGIN CREATOR_V3ONE");
    const auto& fields = *creators[k]->getFieldNames();
    CHECK_EQUAL(size_t(fields.nbFields), attributes[k].size());
    for (size_t n = 0; n < attributes[k].size(); ++n) {
      CHECK_EQUAL(std::string(fields.fields[n].name), attributes[k][n]);
      CHECK(fields.fields[n].type == nvinfer1::PluginFieldType::kINT32);
    }
  }
}

void signatures(Library& library) {
  const auto signature = library.symbol<const char* (*)(int)>("dovit_plugin_signature");
  CHECK_EQUAL(std::string(signature(2)), "TokenReconstruct <prefix> (full, tokens, index) => (new_full)");
  CHECK(signature(3) == nullptr);
  CHECK(signature(-1) == nullptr);
}

void good_fields(Library& library) {
  CHECK(make(library, "TokenDecide", {}));
  CHECK(make(library, "TokenDecide", {{"fixed_capacity", 1}}));
  CHECK(make(library, "TokenGather", {{"prefix", 0}}));
  CHECK(make(library, "TokenGather", {{"prefix", 1}, {"merge", 0}}));
  CHECK(make(library, "TokenGather", {{"prefix", 2049}, {"merge", 0}, {"cell_side", 2}, {"columns", 128}}));
  CHECK(make(library, "TokenReconstruct", {{"prefix", 2}}));
  CHECK(Plugin(library.creator("TokenDecide")->createPlugin("layer", nullptr, nvinfer1::TensorRTPhase::kBUILD)));
  const int64_t prefix = 1;  // parsers pass ONNX's integers as either type
  const nvinfer1::PluginField field("prefix", &prefix, nvinfer1::PluginFieldType::kINT64, 1);
  const nvinfer1::PluginFieldCollection fields{1, &field};
  CHECK(Plugin(library.creator("TokenGather")->createPlugin("layer", &fields, nvinfer1::TensorRTPhase::kBUILD)));
  CHECK_EQUAL(library.recorder.said(), "");
}

void wrong_fields(Library& library) {
  CHECK(!make(library, "TokenGather", {}, "gather1"));
  CHECK_EQUAL(library.recorder.said(),
              "dovit: TokenGather gather1: field prefix is missing: the tokens before the patches: a class token, "
              "registers, the merged tokens of cells");
  CHECK(!make(library, "TokenGather", {{"prefix", -1}}, "gather1"));
  CHECK_EQUAL(library.recorder.said(),
              "dovit: TokenGather gather1: field prefix must be a whole number from 0 to 65536: the tokens before the "
              "patches: a class token, registers, the merged tokens of cells");
  CHECK(!make(library, "TokenGather", {{"prefix", 1}, {"cell_side", -1}}, "gather1"));
  CHECK_EQUAL(
      library.recorder.said(),
      "dovit: TokenGather gather1: field cell_side must be a whole number from 0 to 65536: the patches along the "
      "side of a cell, 0 merges nothing by cell");
  CHECK(!make(library, "TokenGather", {{"prefix", 1}, {"merge", 2}}, "gather1"));
  CHECK_EQUAL(library.recorder.said(),
              "dovit: TokenGather gather1: field merge must be a whole number from 0 to 1: 1 merges the stopped tokens "
              "into the class token, 0 leaves it as it is");
  CHECK(!make(library, "TokenReconstruct", {{"prefix", 65537}}));
  CHECK(!library.recorder.said().empty());
  CHECK(!make(library, "TokenDecide", {{"fixed_capacity", 2}}, "decide1"));
  CHECK_EQUAL(library.recorder.said(),
              "dovit: TokenDecide decide1: field fixed_capacity must be a whole number from 0 to 1: 1 gives keep the "
              "size of all tokens, 0 that of the kept ones");
  CHECK(!make(library, "TokenDecide", {{"prefix", 1}}, "decide1"));
  CHECK_EQUAL(
      library.recorder.said(),
      "dovit: TokenDecide decide1: it has no field prefix; TokenDecide <fixed_capacity> (confidence, threshold, "
      "capacities) => (keep, capacity)");

  const float number = 1.0F;
  const int32_t two[] = {1, 1};
  for (const nvinfer1::PluginField& field :
       {nvinfer1::PluginField("prefix", &number, nvinfer1::PluginFieldType::kFLOAT32, 1),
        nvinfer1::PluginField("prefix", two, nvinfer1::PluginFieldType::kINT32, 2),
        nvinfer1::PluginField("prefix", nullptr, nvinfer1::PluginFieldType::kINT32, 1)}) {
    const nvinfer1::PluginFieldCollection fields{1, &field};
    CHECK(!Plugin(library.creator("TokenGather")->createPlugin(nullptr, &fields, nvinfer1::TensorRTPhase::kRUNTIME)));
    CHECK(library.recorder.said().find("must be a whole number") != std::string::npos);
  }
}

}  // namespace

int main(int, char** arguments) {
  Library library(arguments[1]);
  names(library);
  signatures(library);
  good_fields(library);
  wrong_fields(library);
  return verdict();
}
