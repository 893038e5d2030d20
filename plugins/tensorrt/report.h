// Reports the plugins' errors to the logger of the TensorRT that loaded the library.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace dovit {

void set_logger_finder(nvinfer1::ILoggerFinder* finder);

// Logs an error. Without a logger it goes to the standard error stream: a plugin's caller only gets a null pointer or
// a number, so the reason would be lost.
void report(const std::string& sentence);

}  // namespace dovit
