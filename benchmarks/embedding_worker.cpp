// The C++ side of embedding.py: loads a bundle, then segments once for each line that it reads, and prints how long
// that took.
//     embedding_worker ENGINES LIBONNXRUNTIME.so HEIGHT WIDTH whole|slide      pixels [HEIGHT, WIDTH, 3] first, on
//     stdin
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dovit.hpp>

int main(int count, char** arguments) try {
  if (count != 6) return 2;
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  const int height = std::atoi(arguments[3]), width = std::atoi(arguments[4]);
  std::vector<unsigned char> pixels(std::size_t(height) * width * 3);
  if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) return 2;
  const double start = now();
  dovit::LoadOptions options;
  options.onnxruntime = arguments[2];
  const dovit::Session session(arguments[1], options);
  std::printf("%.9f\n", now() - start);
  std::fflush(stdout);
  dovit::RunOptions running;
  running.mode = std::strcmp(arguments[5], "slide") ? DOVIT_WHOLE : DOVIT_SLIDE;
  char line[16];
  while (std::fgets(line, sizeof line, stdin)) {
    const double before = now();
    const dovit::Result result = session.run({pixels.data(), width, height}, running);
    const double seconds = now() - before;
    unsigned checksum = 0;  // that both sides did the same
    const auto* labels = static_cast<const unsigned char*>(result.labels().data);
    for (std::size_t k = 0; k < pixels.size() / 3; ++k) checksum += labels[k] * static_cast<unsigned>(k + 1);
    std::printf("%.9f %u\n", seconds, checksum);
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "embedding_worker: error: %s\n", error.what());
  return 1;
}
