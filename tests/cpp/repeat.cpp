// Runs one image many times and reloads the session now and then, so that valgrind can find leaks.
//   repeat BUNDLE ONNXRUNTIME RUNS
#include <cstdlib>
#include <dovit.hpp>

#include "expect.h"

int main(int count, char** arguments) {
  if (count != 4) return 2;
  dovit::LoadOptions load;
  load.onnxruntime = arguments[2];
  load.threads = 1;
  load.provider = "cpu";
  const int runs = std::atoi(arguments[3]);
  EXPECT(runs > 0);
  const std::vector<std::uint8_t> pixels(64 * 96 * 3, 127);
  for (int loaded = 0, ran = 0; ran < runs; ++loaded) {
    const dovit::Session session(arguments[1], load);
    for (int n = 0; n < 250 && ran < runs; ++n, ++ran) {
      dovit::RunOptions options;
      options.thresholds = {static_cast<double>(ran % 5) / 4};
      options.schedule = ran % 2 ? DOVIT_EXACT : DOVIT_BUCKETED;
      const dovit::Image image{pixels.data(), 96 - ran % 3, 64};  // resized, but for one in three
      if (ran % 4)
        session.run(image, options);
      else
        session.enqueue(image, options).wait();
    }
  }
  return 0;
}
