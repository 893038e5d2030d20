// GPU sessions on the stand-ins, for the sanitizers: threads share one, jobs are waited for in another order, sessions
// come and go, some at the same time.
//   gpu_sessions BUNDLE BACKEND TENSORRT PLUGINS
#include <cstring>
#include <dovit.hpp>
#include <thread>

#include "expect.h"

namespace {

struct Picture {
  int height, width;
  std::vector<std::uint8_t> pixels;

  dovit::Image image() const { return {pixels.data(), width, height}; }
};

Picture picture(unsigned seed, int height, int width) {
  Picture made{height, width, std::vector<std::uint8_t>(static_cast<std::size_t>(height) * width * 3)};
  for (auto& value : made.pixels) value = static_cast<std::uint8_t>((seed = seed * 1664525u + 1013904223u) >> 24);
  return made;
}

using Labels = std::vector<std::uint8_t>;

Labels labels(const dovit::Result& result) {
  const dovit::Labels made = result.labels();
  const auto* data = static_cast<const std::uint8_t*>(made.data);
  return {data, data + made.width * made.height};
}

// Half the tokens, a fifth, and none: counts, so that these do not depend on the model.
dovit::RunOptions options(unsigned number) {
  dovit::RunOptions run;
  if (number % 3 == 0) run.counts = {12, 5};
  if (number % 3 == 1) run.thresholds = {1.0};
  if (number % 3 == 2) run.thresholds = {0.0};
  return run;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return 2;
  dovit::LoadOptions load;
  load.backend = arguments[2];
  load.tensorrt = arguments[3];
  load.plugins = arguments[4];
  // of the bundle's size, and of two others, so that what grows with them grows in turn
  const Picture pictures[] = {picture(0, 64, 96), picture(1, 80, 60), picture(2, 130, 200)};
  std::vector<Labels> expected;
  {
    const dovit::Session session(arguments[1], load);
    for (unsigned n = 0; n < 3; ++n) expected.push_back(labels(session.run(pictures[n].image(), options(n))));
  }
  EXPECT(expected[0] != expected[1]);
  {  // sessions that are loaded, used and closed at the same time share engines and compiled kernels
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        const dovit::Session session(arguments[1], load);
        EXPECT(labels(session.run(pictures[t].image(), options(t))) == expected[t]);
      });
    for (std::thread& thread : threads) thread.join();
  }
  for (const dovit_graph graph : {DOVIT_WHOLE_IMAGE, DOVIT_SEGMENTED}) {
    load.graph = graph;
    load.workers = 2;
    const dovit::Session session(arguments[1], load);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (unsigned n = t; n < t + 2; ++n) {
          EXPECT(labels(session.run(pictures[n % 3].image(), options(n))) == expected[n % 3]);
        }
      });
    for (std::thread& thread : threads) thread.join();
    std::vector<dovit::Job> jobs;
    for (unsigned n = 0; n < 6; ++n) jobs.push_back(session.enqueue(pictures[n % 3].image(), options(n)));
    for (unsigned n = 6; n-- > 0;) EXPECT(labels(jobs[n].wait()) == expected[n % 3]);
  }
  return 0;
}
