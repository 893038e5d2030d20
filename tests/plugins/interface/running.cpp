// A plugin's life from build to run: serialized and read again, cloned, attached, given its shapes, enqueued.
#include <cuda_runtime_api.h>

#include "library.h"

namespace {

using nvinfer1::DataType;
using Descs = std::vector<nvinfer1::PluginTensorDesc>;

// 2 images, 5 of 9 tokens left, of which 3 stay; 8 channels, a class token.
Descs gather_inputs(DataType type) {
  return {desc(type, {2, 6, 8}),          desc(DataType::kINT32, {2, 5}), desc(type, {2, 9, 8}),
          desc(DataType::kFLOAT, {2, 8}), desc(DataType::kINT64, {1}),    desc(DataType::kINT32, {2, 3})};
}
Descs gather_outputs(DataType type) {
  return {desc(type, {2, 4, 8}), desc(DataType::kINT32, {2, 3}), desc(type, {2, 9, 8}), desc(DataType::kFLOAT, {2, 8}),
          desc(DataType::kINT64, {1})};
}

int32_t told(const Plugin& plugin, const Descs& inputs, const Descs& outputs) {
  return plugin.runtime()->onShapeChange(inputs.data(), static_cast<int32_t>(inputs.size()), outputs.data(),
                                         static_cast<int32_t>(outputs.size()));
}

void stored_and_read_again(Library& library) {
  for (auto* creator : library.creators()) {
    const std::string name = creator->getPluginName();
    const Plugin plugin =
        name == "TokenDecide" ? make(library, "TokenDecide", {{"fixed_capacity", 1}})
        : name == "TokenGather"
            ? make(library, "TokenGather", {{"prefix", 9}, {"merge", 0}, {"cell_side", 2}, {"columns", 3}})
            : make(library, name.c_str(), {{"prefix", 2}});
    const auto* stored = plugin.runtime()->getFieldsToSerialize();
    CHECK_EQUAL(stored->nbFields, name == "TokenGather" ? 4 : 1);
    const Plugin again(creator->createPlugin("again", stored, nvinfer1::TensorRTPhase::kRUNTIME));
    const Plugin cloned(plugin->clone());
    const Plugin attached(plugin.runtime()->attachToContext(nullptr));
    const Plugin attached_clone(cloned.runtime()->attachToContext(nullptr));
    for (const Plugin* copy : {&again, &cloned, &attached, &attached_clone}) {
      CHECK_EQUAL(std::string(copy->core()->getPluginName()), name);
      CHECK_EQUAL(std::string(copy->core()->getPluginVersion()), "1");
      CHECK_EQUAL(std::string(copy->core()->getPluginNamespace()), "dovit");
      const auto* fields = copy->runtime()->getFieldsToSerialize();
      CHECK_EQUAL(fields->nbFields, stored->nbFields);
      for (int k = 0; k < fields->nbFields; ++k) {
        CHECK_EQUAL(std::string(fields->fields[k].name), stored->fields[k].name);
        CHECK_EQUAL(*static_cast<const int32_t*>(fields->fields[k].data),
                    *static_cast<const int32_t*>(stored->fields[k].data));
        CHECK(fields->fields[k].data != stored->fields[k].data);  // which goes with its plugin
      }
    }
    CHECK(plugin->getCapabilityInterface(static_cast<nvinfer1::PluginCapabilityType>(7)) == nullptr);
  }
  CHECK_EQUAL(library.recorder.said(), "");
}

void sizes(Library& library) {
  const Plugin gather = make(library, "TokenGather", {{"prefix", 1}}, "gather1");
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16})
    CHECK_EQUAL(told(gather, gather_inputs(type), gather_outputs(type)), 0);
  CHECK_EQUAL(library.recorder.said(), "");

  const auto wrong = [&](size_t input, const nvinfer1::PluginTensorDesc& tensor, const std::string& sentence) {
    Descs inputs = gather_inputs(DataType::kHALF);
    inputs[input] = tensor;
    CHECK(told(gather, inputs, gather_outputs(DataType::kHALF)) != 0);
    CHECK_EQUAL(library.recorder.said(), "dovit: TokenGather gather1: " + sentence);
  };
  wrong(1, desc(DataType::kINT32, {3, 5}), "index has shape [3, 5] instead of [2, tokens]");
  wrong(1, desc(DataType::kINT64, {2, 5}), "index must be int32");
  wrong(2, desc(DataType::kHALF, {2, 9, 16}), "full has shape [2, 9, 16] instead of [2, positions, 8]");
  wrong(2, desc(DataType::kFLOAT, {2, 9, 8}), "full must be float32, float16 or bfloat16, the same for all tokens");
  wrong(3, desc(DataType::kFLOAT, {8}), "stopped_sum has shape [8] instead of [2, 8]");
  wrong(4, desc(DataType::kINT64, {2}), "stopped_count has shape [2] instead of [1]");
  wrong(0, desc(DataType::kHALF, {2, 7, 8}), "tokens has 7 of them and index 5, but with prefix 1 it should have 6");
  auto tiled = desc(DataType::kINT32, {2, 3});
  tiled.format = nvinfer1::TensorFormat::kCHW32;
  wrong(5, tiled, "keep must be in linear layout");

  const Plugin decide = make(library, "TokenDecide", {{"fixed_capacity", 1}}, "decide1");
  const Descs outputs{desc(DataType::kINT32, {1, 65537}), desc(DataType::kINT32, {})};
  const Descs inputs{desc(DataType::kFLOAT, {1, 65537}), desc(DataType::kFLOAT, {}), desc(DataType::kINT64, {2})};
  CHECK(told(decide, inputs, outputs) != 0);
  CHECK_EQUAL(library.recorder.said(),
              "dovit: TokenDecide decide1: an image has 65537 tokens, more than the 65536 it can decide on");
  CHECK(told(decide, {inputs[0]}, outputs) != 0);
  CHECK_EQUAL(
      library.recorder.said(),
      "dovit: TokenDecide decide1: it has 1 inputs and 2 outputs, but the plugin is TokenDecide <fixed_capacity> "
      "(confidence, threshold, capacities) => (keep, capacity)");
}

// 5 of 9 tokens left on a grid of 3×3, which has 4 cells of 2×2.
void cells(Library& library) {
  const auto told_of = [&](int prefix, int merge, int side, int columns) {
    Descs inputs = gather_inputs(DataType::kHALF), outputs = gather_outputs(DataType::kHALF);
    inputs[0] = desc(DataType::kHALF, {2, prefix + 5, 8}), outputs[0] = desc(DataType::kHALF, {2, prefix + 3, 8});
    const Plugin gather =
        make(library, "TokenGather", {{"prefix", prefix}, {"merge", merge}, {"cell_side", side}, {"columns", columns}},
             "gather1");
    return told(gather, inputs, outputs);
  };
  for (const int prefix : {4, 5}) CHECK_EQUAL(told_of(prefix, 0, 2, 3), 0);
  CHECK_EQUAL(told_of(1, 0, 3, 3), 0);
  CHECK_EQUAL(told_of(1, 1, 0, 4), 0);  // without cell_side, columns are of no interest
  CHECK_EQUAL(library.recorder.said(), "");
  const auto wrong = [&](int prefix, int merge, int side, int columns, const std::string& sentence) {
    CHECK(told_of(prefix, merge, side, columns) != 0);
    CHECK_EQUAL(library.recorder.said(), "dovit: TokenGather gather1: " + sentence);
  };
  wrong(4, 1, 2, 3, "with cell_side 2 its attribute merge must be 0");
  wrong(4, 0, 2, 0, "columns is 0, which does not divide the 9 positions of full");
  wrong(4, 0, 2, 4, "columns is 4, which does not divide the 9 positions of full");
  wrong(3, 0, 2, 3, "prefix is 3, but 3 by 3 patches have 4 cells of 2 by 2, a token each among the prefix");
}

void workspace(Library& library) {
  const Plugin gather = make(library, "TokenGather", {{"prefix", 1}});
  std::vector<nvinfer1::DynamicPluginTensorDesc> inputs, outputs;
  for (const auto& tensor : gather_inputs(DataType::kHALF)) inputs.push_back({tensor, {}, tensor.dims, tensor.dims});
  inputs[0].max = dims({2, 131, 8});
  inputs[1].max = dims({2, 130});
  // sums of 3 tiles of 64 tokens each, rounded up to 256 bytes; a slot for each token
  CHECK_EQUAL(gather.build()->getWorkspaceSize(inputs.data(), 6, outputs.data(), 5), 256u + 2 * 130 * 4);
  CHECK_EQUAL(gather.build()->configurePlugin(inputs.data(), 6, outputs.data(), 5), 0);
  const Plugin reconstruct = make(library, "TokenReconstruct", {{"prefix", 1}});
  CHECK_EQUAL(reconstruct.build()->getWorkspaceSize(inputs.data(), 3, outputs.data(), 1), 0u);
}

// Without a GPU no kernel can be launched: enqueue must return an error, and the plugin stay usable.
void called_without_a_gpu(Library& library) {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return;
  const Plugin gather = make(library, "TokenGather", {{"prefix", 1}}, "gather1");
  const Descs inputs = gather_inputs(DataType::kFLOAT), outputs = gather_outputs(DataType::kFLOAT);
  std::vector<char> bytes(4096);
  const std::vector<const void*> from(6, bytes.data());
  const std::vector<void*> to(5, bytes.data());
  for (int time = 0; time < 2; ++time) {
    CHECK(gather.runtime()->enqueue(inputs.data(), outputs.data(), from.data(), to.data(), bytes.data(), nullptr) != 0);
    CHECK(library.recorder.said().find("dovit: TokenGather gather1: its kernels could not be launched: CUDA driver") ==
          0);
  }
}

}  // namespace

int main(int, char** arguments) {
  Library library(arguments[1]);
  stored_and_read_again(library);
  sizes(library);
  cells(library);
  workspace(library);
  called_without_a_gpu(library);
  return verdict();
}
