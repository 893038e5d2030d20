#include "cache_folder.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

namespace dovit::runtime {

namespace {

constexpr size_t kEntryBytes = size_t{1} << 16;  // of a user's entry in passwd, at most

std::string in_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Services of systemd run without HOME, users of many containers without an entry.
std::string home_in_passwd() {
  std::vector<char> content(kEntryBytes);
  passwd entry{}, *user = nullptr;
  getpwuid_r(getuid(), &entry, content.data(), content.size(), &user);
  return user && user->pw_dir ? user->pw_dir : "";
}

}  // namespace

std::optional<std::filesystem::path> cache_folder(const std::string& kind) {
  const std::string named = in_environment("XDG_CACHE_HOME");
  if (!named.empty()) return std::filesystem::path(named) / "dovit" / kind;
  std::string home = in_environment("HOME");
  if (home.empty()) home = home_in_passwd();
  if (home.empty()) return std::nullopt;
  return std::filesystem::path(home) / ".cache" / "dovit" / kind;
}

}  // namespace dovit::runtime
