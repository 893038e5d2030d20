// Where the user's caches lie: compiled kernels, what was measured.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace dovit::runtime {

// $XDG_CACHE_HOME/dovit/KIND, or the same in ~/.cache; none for a user who has no home, in the environment or in
// passwd. It need not exist. runtime/cache_folder.py has the same rules, because each runtime reads what the other
// keeps.
std::optional<std::filesystem::path> cache_folder(const std::string& kind);

}  // namespace dovit::runtime
