#include "bundle/sha256.h"

#include <openssl/evp.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

std::string sha256(const std::filesystem::path& file) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(file.c_str(), "rb"), &std::fclose);
  if (!stream) throw DovitError(text(file.string(), ": cannot be read: ", std::strerror(errno)));
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  bool good = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<unsigned char> block(1 << 18);
  while (const size_t count = std::fread(block.data(), 1, block.size(), stream.get()))
    good = good && EVP_DigestUpdate(context.get(), block.data(), count);
  if (std::ferror(stream.get())) throw DovitError(text(file.string(), ": cannot be read: ", std::strerror(errno)));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  good = good && EVP_DigestFinal_ex(context.get(), digest, &size);
  if (!good) throw DovitError("OpenSSL cannot compute SHA-256 here: install a libcrypto that has it");
  std::string text;
  for (unsigned k = 0; k < size; ++k) {
    text += "0123456789abcdef"[digest[k] >> 4];
    text += "0123456789abcdef"[digest[k] & 15];
  }
  return text;
}

}  // namespace dovit::runtime
