#include "chain/dimensions.h"

#include "errors.h"

namespace dovit::runtime {

void set_kept(Dimensions& dims, const Manifest& manifest, size_t number, int64_t kept) {
  dims["kept" + std::to_string(number)] = kept;
  dims["length" + std::to_string(number)] = kept + manifest.prefix;
}

Dimensions full_dims(const Manifest& manifest) {
  Dimensions dims{{"batch", 1}};
  for (size_t number = 1; number <= manifest.decisions.size(); ++number)
    set_kept(dims, manifest, number, manifest.tokens());
  return dims;
}

Shape resolve(const TensorSpec& spec, const Dimensions& dims) {
  Shape shape;
  for (const Dimension& dimension : spec.shape) {
    if (const auto* size = std::get_if<int64_t>(&dimension)) {
      shape.push_back(*size);
      continue;
    }
    const auto found = dims.find(std::get<std::string>(dimension));
    if (found == dims.end())
      throw DovitError(text("tensor ", spec.name, " is needed before its size is known; export the bundle again"));
    shape.push_back(found->second);
  }
  return shape;
}

}  // namespace dovit::runtime
