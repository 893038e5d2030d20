// C++ objects as a caller meets them that has no headers: a pointer to a table of functions comes first.
//
// What TensorRT hands out is {table, pointer to the implementation}; the implementation begins with a pointer to its
// own table, and that is where the functions are. Both tables begin with two destructors, of which the second frees
// too.
#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace stand_in {

using Slot = void (*)();

template <const char* kTable, size_t kNumber>
[[noreturn]] void unexpected() {
  std::fprintf(stderr, "stand-in for TensorRT: slot %zu of %s was called\n", kNumber, kTable);
  std::abort();
}

// A table in which every slot ends the program, until it is set.
template <const char* kTable>
class VTable {
 public:
  VTable() : VTable(std::make_index_sequence<kSlots>()) {}

  template <class Function>
  VTable& set(size_t number, Function* function) {
    slots_[number] = reinterpret_cast<Slot>(function);
    return *this;
  }
  const Slot* slots() const { return slots_.data(); }

 private:
  static constexpr size_t kSlots = 80;
  template <size_t... kNumbers>
  explicit VTable(std::index_sequence<kNumbers...>) : slots_{&unexpected<kTable, kNumbers>...} {}
  std::array<Slot, kSlots> slots_;
};

// What callers hold of an Impl.
template <class Impl>
struct Outer {
  const Slot* slots;
  Impl* impl;
};

template <class Impl>
void destroy(Outer<Impl>* outer) {
  delete outer->impl;
  delete outer;
}

template <class Impl>
Outer<Impl>* make_outer(Impl* impl) {
  static const auto table = VTable<Impl::kName>().set(1, &destroy<Impl>);
  return new Outer<Impl>{table.slots(), impl};
}

}  // namespace stand_in
