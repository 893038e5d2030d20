// Prints where kept files lie, to be compared with Python:
//   user_cache folder KIND    the user's cache folder, or "none"
#include <cstring>
#include <iostream>

#include "cache_folder.h"

using namespace dovit::runtime;

int main(int count, char** arguments) {
  if (count != 3 || std::strcmp(arguments[1], "folder")) return 2;
  std::cout << cache_folder(arguments[2]).value_or("none").string() << "\n";
  return 0;
}
