// Functions that TensorRT calls when it loads the library, and functions for the tests of both languages.
#include <array>

#include "creator.h"
#include "token_decide.h"
#include "token_gather.h"
#include "token_reconstruct.h"

#define DOVIT_API extern "C" __attribute__((visibility("default")))

DOVIT_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static dovit::Creator<dovit::TokenDecide> decide;
  static dovit::Creator<dovit::TokenGather> gather;
  static dovit::Creator<dovit::TokenReconstruct> reconstruct;
  static const std::array<nvinfer1::IPluginCreatorInterface*, 3> creators{&decide, &gather, &reconstruct};
  count = static_cast<int32_t>(creators.size());
  return creators.data();
}

DOVIT_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { dovit::set_logger_finder(finder); }

// The head of a plugin's ONNX function, "TokenGather <prefix> (tokens, …) => (new_tokens, …)"; null past the last one.
DOVIT_API const char* dovit_plugin_signature(int number) {
  static const std::array<std::string, 3> texts{dovit::TokenDecide::signature().text(),
                                                dovit::TokenGather::signature().text(),
                                                dovit::TokenReconstruct::signature().text()};
  return number >= 0 && number < static_cast<int>(texts.size()) ? texts[number].c_str() : nullptr;
}
