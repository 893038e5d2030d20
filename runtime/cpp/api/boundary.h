// Where exceptions end: a C function's body runs inside `guarded`, which turns them into a status and this thread's
// sentence.
#pragma once

#include <new>

#include "dovit.h"
#include "errors.h"

namespace dovit::runtime {

const char* last_error() noexcept;
void set_last_error(const char* sentence) noexcept;

template <class Body>
dovit_status guarded(const Body& body) noexcept {
  try {
    body();
    return DOVIT_OK;
  } catch (const UsageError& error) {
    set_last_error(error.what());
    return DOVIT_USAGE;
  } catch (const Unsupported& error) {
    set_last_error(error.what());
    return DOVIT_UNSUPPORTED;
  } catch (const DovitError& error) {
    set_last_error(error.what());
  } catch (const std::bad_alloc&) {
    set_last_error("not enough memory: free some, or use a smaller model or image");
  } catch (const std::exception& error) {
    set_last_error(("internal error: " + std::string(error.what())).c_str());
  } catch (...) {
    set_last_error("internal error");
  }
  return DOVIT_ERROR;
}

}  // namespace dovit::runtime
