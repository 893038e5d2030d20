// Reads values from JSON without converting types, like pydantic's strict mode. The first error is reported: fields in
// their order, then unknown fields.
#pragma once

#include <nlohmann/json.hpp>
#include <set>

#include "bundle/fields.h"
#include "errors.h"

namespace dovit::runtime {

using Json = nlohmann::ordered_json;  // the order of `files` decides which error is reported first

// A field that cannot be taken: where it is, as `steps.0.name`, and why; empty where this dovit does not know it.
struct FieldError {
  std::string where, why;

  // The sentence for a file that dovit wrote; `again` says what to make anew.
  std::string sentence(const std::string& again) const {
    if (why.empty())
      return "the field " + where + " is not known to this dovit; upgrade dovit if a newer one wrote it, else " + again;
    return "the field " + where + " is wrong (" + why + "); " + again;
  }
};

// Where a value lies: a list of names on the stack, joined only when something is wrong.
struct Where {
  const Where* parent = nullptr;
  std::string name;

  std::string joined() const {
    const std::string before = parent ? parent->joined() : "";
    return before.empty() ? name : before + "." + name;
  }
  [[noreturn]] void fail(const std::string& why) const { throw FieldError{joined(), why}; }
};

inline void read(const Json& json, std::string& value, const Where& where) {
  if (!json.is_string()) where.fail("Input should be a valid string");
  value = json.get<std::string>();
}

inline void read(const Json& json, int64_t& value, const Where& where) {
  if (!json.is_number_integer()) where.fail("Input should be a valid integer");
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    where.fail("Input should be an integer of 64 bits");
  value = json.get<int64_t>();
}

inline void read(const Json& json, double& value, const Where& where) {
  if (!json.is_number()) where.fail("Input should be a valid number");
  value = json.get<double>();
}

inline void read(const Json& json, bool& value, const Where& where) {
  if (!json.is_boolean()) where.fail("Input should be a valid boolean");
  value = json.get<bool>();
}

template <class Names>
void read(const Json& json, Choice<Names>& value, const Where& where) {
  for (const char* name : Names::all)
    if (json.is_string() && json.get_ref<const std::string&>() == name) {
      value.value = name;
      return;
    }
  std::string list;
  for (size_t k = 0; k < Names::all.size(); ++k)
    list += (k == 0 ? "'" : k + 1 == Names::all.size() ? " or '" : ", '") + std::string(Names::all[k]) + "'";
  where.fail("Input should be " + list);
}

inline void read(const Json& json, Dimension& value, const Where& where) {
  if (json.is_string()) {
    value = json.get<std::string>();
    return;
  }
  int64_t number = 0;
  read(json, number, Where{&where, "int"});
  value = number;
}

template <class T>
void read(const Json& json, T& part, const Where& where);

template <class T>
void read(const Json& json, std::optional<T>& value, const Where& where) {
  if (json.is_null()) {
    value.reset();
    return;
  }
  read(json, value.emplace(), where);
}

template <class T>
void read(const Json& json, std::vector<T>& values, const Where& where) {
  if (!json.is_array()) where.fail("Input should be a valid array");
  values.clear();
  for (size_t k = 0; k < json.size(); ++k) read(json[k], values.emplace_back(), Where{&where, std::to_string(k)});
}

template <class T, size_t kCount>
void read(const Json& json, std::array<T, kCount>& values, const Where& where) {
  if (!json.is_array()) where.fail("Input should be a valid array");
  for (size_t k = 0; k < kCount; ++k) {
    const Where here{&where, std::to_string(k)};
    if (k >= json.size()) here.fail("Field required");
    read(json[k], values[k], here);
  }
  if (json.size() > kCount)
    where.fail(text("Tuple should have at most ", kCount, " items after validation, not ", json.size()));
}

// A map, in the order of the file.
template <class T>
void read(const Json& json, std::vector<std::pair<std::string, T>>& entries, const Where& where) {
  if (!json.is_object()) where.fail("Input should be an object");
  entries.clear();
  for (const auto& [key, value] : json.items()) {
    auto& entry = entries.emplace_back();
    entry.first = key;
    read(value, entry.second, Where{&where, key});
  }
}

class FieldReader {
 public:
  FieldReader(const Json& json, const Where& where) : json_(json), where_(where) {}

  template <class T>
  void operator()(const char* name, T& value) {
    take(name, value, true);
  }
  template <class T>
  void optional(const char* name, T& value) {
    take(name, value, false);
  }
  void done() const {
    for (const auto& entry : json_.items())
      if (!known_.count(entry.key())) Where{&where_, entry.key()}.fail("");
  }

 private:
  template <class T>
  void take(const char* name, T& value, bool required) {
    known_.insert(name);
    const Where here{&where_, name};
    const auto found = json_.find(name);
    if (found != json_.end())
      read(*found, value, here);
    else if (required)
      here.fail("Field required");
  }

  const Json& json_;
  const Where& where_;
  std::set<std::string> known_;
};

template <class T>
void read(const Json& json, T& part, const Where& where) {
  if (!json.is_object()) where.fail("Input should be an object");
  FieldReader reader(json, where);
  fields(reader, part);
  reader.done();
}

}  // namespace dovit::runtime
