// Segments a PNG: labels as an indexed PNG, and the image under their colours.
//
//     segment ENGINES IMAGE.png LABELS.png OVERLAY.png [--slide] [--bucketed] [--backend …] [--onnxruntime …]
#include <cmath>
#include <cstdio>
#include <dovit.hpp>

#include "loading.hpp"
#include "png.hpp"

namespace {

// A class's own colour, or a grey where the bundle has none.
Palette palette_of(const dovit::Session& session) {
  Palette palette;
  const int classes = session.info().classes;
  for (int number = 0; number < classes; ++number) {
    auto& colour = palette.emplace_back();
    if (!session.class_colour(number, colour)) colour.fill(static_cast<std::uint8_t>(number * 255 / classes));
  }
  return palette;
}

std::vector<std::uint8_t> overlay(const Picture& picture, const std::uint8_t* labels, const Palette& palette) {
  std::vector<std::uint8_t> mixed(picture.rgb.size());
  for (std::size_t k = 0; k < mixed.size(); ++k)
    mixed[k] = static_cast<std::uint8_t>(std::nearbyint((picture.rgb[k] + palette[labels[k / 3]][k % 3]) / 2.0f));
  return mixed;
}

int segment(std::vector<std::string> arguments) {
  const dovit::LoadOptions loading = take_loading(arguments);
  dovit::RunOptions running;
  std::vector<std::string> paths;
  for (const std::string& argument : arguments) {
    if (argument == "--slide")
      running.mode = DOVIT_SLIDE;
    else if (argument == "--bucketed")
      running.schedule = DOVIT_BUCKETED;
    else
      paths.push_back(argument);
  }
  if (paths.size() != 4) {
    std::fprintf(stderr, "usage: segment ENGINES IMAGE.png LABELS.png OVERLAY.png [--slide] [--bucketed]\n  %s\n",
                 kLoadingUsage);
    return 2;
  }
  const dovit::Session session(paths[0], loading);
  const Picture picture = read_png(paths[1]);
  const dovit::Result result = session.run({picture.rgb.data(), picture.width, picture.height}, running);
  const dovit::Labels labels = result.labels();
  if (labels.label_bytes != 1) throw std::runtime_error("more than 256 classes do not fit into an indexed PNG");
  const auto* classes = static_cast<const std::uint8_t*>(labels.data);
  const Palette palette = palette_of(session);
  write_png(paths[2], labels.width, labels.height, classes, &palette);
  write_png(paths[3], labels.width, labels.height, overlay(picture, classes, palette).data());
  std::printf("kept");
  for (const std::int64_t kept : result.kept()) std::printf(" %lld", static_cast<long long>(kept));
  std::printf(" of %lld tokens\n", static_cast<long long>(result.tokens()));
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return segment({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "segment: error: %s\n", error.what());
    return 1;
  }
}
