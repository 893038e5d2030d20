// Bilinear resizing of images, to the bit as Pillow does it: the Python runtime's, and the one that training saw.
#pragma once

#include <array>

#include "image/pixels.h"

namespace dovit::runtime {

// uint8 [H, W, 3] → [h, w, 3]; averages where it shrinks. The image itself where the size is its own.
Pixels resized(const Pixels& image, Size size);

// The largest size of an image's proportions inside `window`, rounded as mmcv's rescale_size does.
Size fitted_size(Size image, Size window);

// `image` in the top left of a larger one, the rest of which has the colour `fill`, rounded to whole numbers.
Pixels padded(Pixels image, Size size, const std::array<double, 3>& fill);

}  // namespace dovit::runtime
