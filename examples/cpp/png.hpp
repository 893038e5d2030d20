// PNG files by libpng's simplified interface: 8-bit RGB in; indexed labels and RGB out.
#pragma once

#include <png.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // [height, width, 3]
};

using Palette = std::vector<std::array<std::uint8_t, 3>>;

inline Picture read_png(const std::string& path) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_file(&image, path.c_str())) throw std::runtime_error(path + ": " + image.message);
  image.format = PNG_FORMAT_RGB;
  Picture picture{static_cast<int>(image.width), static_cast<int>(image.height), {}};
  picture.rgb.resize(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, picture.rgb.data(), 0, nullptr))
    throw std::runtime_error(path + ": " + image.message);
  return picture;
}

// With a palette, `pixels` are indices into it; without, RGB.
inline void write_png(const std::string& path, int width, int height, const std::uint8_t* pixels,
                      const Palette* palette = nullptr) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width);
  image.height = static_cast<png_uint_32>(height);
  image.format = palette ? PNG_FORMAT_RGB_COLORMAP : PNG_FORMAT_RGB;
  image.colormap_entries = palette ? static_cast<png_uint_32>(palette->size()) : 0;
  if (!png_image_write_to_file(&image, path.c_str(), 0, pixels, 0, palette ? palette->data() : nullptr))
    throw std::runtime_error(path + ": " + image.message);
}
