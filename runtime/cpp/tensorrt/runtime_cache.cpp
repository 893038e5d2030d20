#include "tensorrt/runtime_cache.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "bundle/sha256.h"
#include "cache_folder.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

namespace fs = std::filesystem;

// Letters, digits, `_`, `.` and `-` as they are, and `_` for any run of others.
std::string as_file_name(const std::string& part) {
  std::string name;
  bool replaced = false;
  for (const char letter : part) {
    const auto byte = static_cast<unsigned char>(letter);
    const bool plain = std::isalnum(byte) || letter == '_' || letter == '.' || letter == '-' || byte >= 0x80;
    if (plain || !replaced) name += plain ? letter : '_';
    replaced = !plain;
  }
  return name;
}

// Whole or not at all: a file beside it takes its place.
void replace(const fs::path& file, const std::string& content) {
  fs::create_directories(file.parent_path());
  std::string part = file.string() + ".XXXXXX";
  const int made = mkstemp(part.data());
  if (made < 0) throw fs::filesystem_error("cannot be created", part, std::error_code(errno, std::generic_category()));
  close(made);
  std::ofstream out(part, std::ios::binary);
  out << content;
  out.close();
  std::error_code failed = out ? std::error_code() : std::error_code(errno, std::generic_category());
  if (!failed) fs::rename(part, file, failed);
  if (!failed) return;
  fs::remove(part);
  throw fs::filesystem_error("cannot be written", file, failed);
}

}  // namespace

std::string runtime_cache_file(const std::string& flavour, const std::string& version, const std::string& gpu,
                               const std::string& capability) {
  const std::optional<fs::path> folder = cache_folder("kernels");
  if (!folder) return "";
  std::string name;
  for (const std::string& part : {flavour, version, gpu, capability})
    name += (name.empty() ? "" : "-") + as_file_name(part);
  return (*folder / (name + ".cache")).string();
}

const tensorrt::CompiledKernels* RuntimeCache::get(tensorrt::Engine& engine) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!asked_) {
    kernels_ = engine.create_cache();
    std::ifstream in(file_, std::ios::binary);
    if (kernels_ && in) {
      const std::string content{std::istreambuf_iterator<char>(in), {}};
      if (kernels_->deserialize(content)) saved_ = sha256(content);
    }
    asked_ = true;
  }
  return kernels_.get();
}

void RuntimeCache::refused() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!told_)
    std::fprintf(stderr, "dovit: TensorRT-RTX takes no runtime cache: every context compiles its kernels anew\n");
  told_ = true;
}

void RuntimeCache::save() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!kernels_ || file_.empty()) return;
  const std::string content = kernels_->serialize(), hash = sha256(content);
  if (content.empty() || hash == saved_) return;
  try {
    replace(file_, content);
    saved_ = hash;
  } catch (const fs::filesystem_error& error) {
    std::fprintf(stderr, "dovit: %s: compiled kernels are not kept (%s)\n", file_.c_str(),
                 error.code().message().c_str());
  }
}

}  // namespace dovit::runtime
