// Frames through a session without waiting for each: two are on their way while the next is made. Every frame is also
// run by itself, and the labels must be the same.
//
//     pipeline ENGINES FRAMES [--backend …] [--onnxruntime …]
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <dovit.hpp>

#include "loading.hpp"

namespace {

// What a camera would have written: a moving pattern, with gaps between the rows.
struct Frame {
  static constexpr int kWidth = 400, kHeight = 300, kStride = 4 * kWidth + 64;
  std::vector<std::uint8_t> bgra = std::vector<std::uint8_t>(static_cast<std::size_t>(kStride) * kHeight);
  std::vector<std::uint8_t> labels = std::vector<std::uint8_t>(static_cast<std::size_t>(kWidth) * kHeight);

  explicit Frame(int number) {
    for (int y = 0; y < kHeight; ++y)
      for (int x = 0; x < kWidth; ++x)
        for (int c = 0; c < 4; ++c)
          bgra[static_cast<std::size_t>(y) * kStride + 4 * x + c] =
              static_cast<std::uint8_t>((x + 8 * number) / (c + 1) + y * (c + 1));
  }
  dovit::Image image() const { return {bgra.data(), kWidth, kHeight, kStride, DOVIT_BGRA}; }
};

struct Underway {
  std::unique_ptr<Frame> frame;  // stays where it is until the wait is over
  dovit::Job job;
};

int pipeline(const std::string& engines, int frames, dovit::LoadOptions loading) {
  loading.workers = 2;
  const dovit::Session session(engines, loading);
  std::deque<Underway> underway;
  int equal = 0;
  const auto finish_one = [&] {
    Underway first = std::move(underway.front());
    underway.pop_front();
    const dovit::Result result = first.job.wait();  // its labels are in the frame's own memory
    std::vector<std::uint8_t> alone(first.frame->labels.size());
    session.run(first.frame->image()).copy_labels(alone.data());
    equal += alone == first.frame->labels;
  };
  for (int number = 0; number < frames; ++number) {
    auto frame = std::make_unique<Frame>(number);
    dovit::RunOptions running;
    running.labels = frame->labels.data();
    dovit::Job job = session.enqueue(frame->image(), running);
    underway.push_back({std::move(frame), std::move(job)});
    if (underway.size() > 2) finish_one();
  }
  while (!underway.empty()) finish_one();
  std::printf("%d frames, %d with the labels that they get alone\n", frames, equal);
  return equal == frames ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> given{arguments + 1, arguments + count};
  const dovit::LoadOptions loading = take_loading(given);
  const int frames = given.size() == 2 ? std::atoi(given[1].c_str()) : 0;
  if (frames < 1) {  // FRAMES is how many are drawn
    std::fprintf(stderr, "usage: pipeline ENGINES FRAMES %s\nFRAMES is a number: so many frames are drawn\n",
                 kLoadingUsage);
    return 2;
  }
  try {
    return pipeline(given[0], frames, loading);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pipeline: error: %s\n", error.what());
    return 1;
  }
}
