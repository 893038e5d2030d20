// Bilinear resizing of images, to the bit as Pillow does it: the Python runtime's, and the one that training saw.
#pragma once

#include "image/pixels.h"

namespace dovit::runtime {

// uint8 [H, W, 3] → [h, w, 3]; averages where it shrinks. The image itself where the size is its own.
Pixels resized(const Pixels& image, Size size);

}  // namespace dovit::runtime
