// Objects of TensorRT's classes without an override of each of their hundred virtual functions: tables of functions,
// filled by hand where TensorRT's header says that a function stands.
//
// What TensorRT hands out is {table, pointer to the implementation}; the implementation begins with a pointer to its
// own table, and that is where the functions are. Both tables begin with two destructors, of which the second frees
// too. (The Itanium C++ ABI, which compilers for Linux follow.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace stand_in {

using Slot = void (*)();

// A pointer to a virtual function is 1 + 8 times its place.
template <class Function>
size_t place_of(Function function) {
  static_assert(sizeof function == 2 * sizeof(std::ptrdiff_t), "a pointer to a function of a class");
  std::ptrdiff_t words[2];
  std::memcpy(words, &function, sizeof words);
  return static_cast<size_t>(words[0] / 8);
}

template <const char* kTable, size_t kNumber>
[[noreturn]] void unexpected() {
  std::fprintf(stderr, "stand-in for TensorRT: slot %zu of %s was called\n", kNumber, kTable);
  std::abort();
}

// A table in which every slot ends the program until it is set.
template <const char* kTable>
class VTable {
 public:
  VTable() : VTable(std::make_index_sequence<kSlots>()) {}

  template <class Function>
  VTable& set(size_t place, Function* function) {
    slots_[place] = reinterpret_cast<Slot>(function);
    return *this;
  }
  // `virtual_function`: of TensorRT's class, in whose place `function` is called, with the object first.
  template <class Result, class Class, class... Arguments, class Self>
  VTable& set(Result (Class::*virtual_function)(Arguments...) noexcept, Result (*function)(Self*, Arguments...)) {
    return set(place_of(virtual_function), function);
  }
  template <class Result, class Class, class... Arguments, class Self>
  VTable& set(Result (Class::*virtual_function)(Arguments...) const noexcept, Result (*function)(Self*, Arguments...)) {
    return set(place_of(virtual_function), function);
  }
  const Slot* slots() const { return slots_.data(); }

 private:
  static constexpr size_t kSlots = 80;
  template <size_t... kNumbers>
  explicit VTable(std::index_sequence<kNumbers...>) : slots_{&unexpected<kTable, kNumbers>...} {}
  std::array<Slot, kSlots> slots_;
};

// The object that callers hold a pointer to.
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
