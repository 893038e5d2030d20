// GPU sessions on the stand-ins, for the sanitizers: threads share one, jobs are waited for in another order, sessions
// come and go, some at the same time, and one fails while threads wait for it.
//   gpu_sessions BUNDLE BACKEND TENSORRT PLUGINS [failure]      failure: that last part alone
#include <dlfcn.h>

#include <chrono>
#include <cstring>
#include <dovit.hpp>
#include <future>
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

// Threads share a session, and have sessions of their own at the same time.
void test_sharing(const char* bundle, dovit::LoadOptions load) {
  // of the bundle's size, and of two others, so that what grows with them grows in turn
  const Picture pictures[] = {picture(0, 64, 96), picture(1, 80, 60), picture(2, 130, 200)};
  std::vector<Labels> expected;
  {
    const dovit::Session session(bundle, load);
    for (unsigned n = 0; n < 3; ++n) expected.push_back(labels(session.run(pictures[n].image(), options(n))));
  }
  EXPECT(expected[0] != expected[1]);
  {  // sessions that are loaded, used and closed at the same time share engines and compiled kernels
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        const dovit::Session session(bundle, load);
        EXPECT(labels(session.run(pictures[t].image(), options(t))) == expected[t]);
      });
    for (std::thread& thread : threads) thread.join();
  }
  for (const dovit_graph graph : {DOVIT_WHOLE_IMAGE, DOVIT_SEGMENTED}) {
    load.graph = graph;
    load.workers = 2;
    const dovit::Session session(bundle, load);
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
}

// The GPU fails in one of many passes. The session has one place for an image, so most threads wait for it at that
// time: each must get an error, and none may be left waiting.
void test_a_failure_ends_every_wait(const char* bundle, dovit::LoadOptions load) {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);  // the stand-in
  EXPECT(driver);
  const auto fail = reinterpret_cast<void (*)(const char*, int)>(dlsym(driver, "stand_in_fail"));
  EXPECT(fail);
  load.workers = 1;
  const dovit::Session session(bundle, load);
  const Picture one = picture(0, 64, 96);
  fail("cuGraphLaunch", 30);  // late enough for all threads to have begun
  std::vector<std::future<std::string>> errors;
  for (unsigned t = 0; t < 8; ++t)
    errors.push_back(std::async(std::launch::async, [&]() -> std::string {
      try {
        for (;;) session.run(one.image());
      } catch (const dovit::Error& error) {
        return error.what();
      }
    }));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  int first = 0;
  for (std::future<std::string>& error : errors) {
    EXPECT(error.wait_until(limit) == std::future_status::ready);  // or it waits forever
    const std::string sentence = error.get();
    const bool failed = sentence.find("the GPU failed: ") == 0;
    EXPECT(failed || sentence.find("the session refuses work after an error (") == 0);
    first += failed;
  }
  EXPECT(first == 1);
}

}  // namespace

int main(int count, char** arguments) {
  const bool failure_alone = count == 6 && !std::strcmp(arguments[5], "failure");
  if (count != 5 && !failure_alone) return 2;
  dovit::LoadOptions load;
  load.backend = arguments[2];
  load.tensorrt = arguments[3];
  load.plugins = arguments[4];
  if (!failure_alone) test_sharing(arguments[1], load);
  test_a_failure_ends_every_wait(arguments[1], load);
  return 0;
}
