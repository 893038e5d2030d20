// Prints where kept files lie and what their names are made of, to be compared with Python:
//   user_cache folder KIND          the user's cache folder, or "none"
//   user_cache processor CPUINFO    what such a file says of the processor
#include <cstring>
#include <iostream>

#include "cache_folder.h"
#include "openvino/records.h"

using namespace dovit::runtime;

int main(int count, char** arguments) {
  if (count != 3) return 2;
  if (!std::strcmp(arguments[1], "folder"))
    std::cout << cache_folder(arguments[2]).value_or("none").string() << "\n";
  else
    std::cout << processor(arguments[2]) << "\n";
  return 0;
}
