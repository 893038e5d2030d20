#include "bundle/sha256.h"

#include <openssl/evp.h>

#include <memory>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

class Hash {
 public:
  Hash() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    good_ = context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void add(const char* bytes, size_t count) { good_ = good_ && EVP_DigestUpdate(context_.get(), bytes, count); }
  std::string hexadecimal() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    good_ = good_ && EVP_DigestFinal_ex(context_.get(), digest, &size);
    if (!good_) throw DovitError("OpenSSL cannot compute SHA-256 here: install a libcrypto that has it");
    std::string text;
    for (unsigned k = 0; k < size; ++k) {
      text += "0123456789abcdef"[digest[k] >> 4];
      text += "0123456789abcdef"[digest[k] & 15];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
  bool good_ = false;
};

}  // namespace

std::string sha256(std::string_view bytes) {
  Hash hash;
  hash.add(bytes.data(), bytes.size());
  return hash.hexadecimal();
}

std::string sha256(const RegularFile& file) {
  Hash hash;
  std::vector<char> block(1 << 18);
  while (const size_t count = file.read(block.data(), block.size())) hash.add(block.data(), count);
  return hash.hexadecimal();
}

}  // namespace dovit::runtime
