// Prints what the manifest reader makes of files, to be compared with Python's reader:
//   manifests layout LAYOUT.json      the fields that it knows are those of the file
//   manifests read FOLDER...          a line for each: "read", or the sentence
//   manifests open FOLDER...          the same of whole bundles
//   manifests program FILE...         the same of programs
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bundle/fields.h"
#include "bundle/open.h"
#include "bundle/program.h"
#include "bundle/read.h"
#include "errors.h"

using namespace dovit::runtime;
using Layout = nlohmann::ordered_json;

namespace {

// The name of a type as manifest_layout.json writes it; the records met on the way are described too.
struct Describer {
  Layout& records;

  Layout of(const std::string&) { return "string"; }
  Layout of(const int64_t&) { return "integer"; }
  Layout of(const double&) { return "number"; }
  Layout of(const bool&) { return "boolean"; }
  Layout of(const Dimension&) { return "integer or string"; }
  template <class Names>
  Layout of(const Choice<Names>&) {
    return {{"choice", Names::all}};
  }
  template <class T>
  Layout of(const std::optional<T>&) {
    return {{"optional", of(T{})}};
  }
  template <class T>
  Layout of(const std::vector<T>&) {
    return {{"list", of(T{})}};
  }
  template <class T>
  Layout of(const std::vector<std::pair<std::string, T>>&) {
    return {{"map", of(T{})}};
  }
  template <class T, size_t kCount>
  Layout of(const std::array<T, kCount>&) {
    return {{"tuple", of(T{})}, {"count", kCount}};
  }
  template <class T>
  Layout of(const T& record);
};

// One record's fields.
struct Fields {
  Describer& describer;
  Layout made = Layout::object();

  template <class T>
  void operator()(const char* name, T& value) {
    made[name] = {{"type", describer.of(value)}, {"required", true}};
  }
  template <class T>
  void optional(const char* name, T& value) {
    made[name] = {{"type", describer.of(value)}, {"required", false}};
  }
};

const char* name_of(const TensorSpec&) { return "TensorSpec"; }
const char* name_of(const StepMacs&) { return "StepMacs"; }
const char* name_of(const Step&) { return "Step"; }
const char* name_of(const State&) { return "State"; }
const char* name_of(const DecisionSpec&) { return "DecisionSpec"; }
const char* name_of(const Source&) { return "Source"; }
const char* name_of(const FileEntry&) { return "FileEntry"; }
const char* name_of(const Profile&) { return "Profile"; }
const char* name_of(const Plan&) { return "Plan"; }
const char* name_of(const PlanStep&) { return "PlanStep"; }
const char* name_of(const Accuracy&) { return "Accuracy"; }
const char* name_of(const PlanSet&) { return "PlanSet"; }
const char* name_of(const LeftOut&) { return "LeftOut"; }
const char* name_of(const Quantization&) { return "Quantization"; }
const char* name_of(const Manifest&) { return "Manifest"; }

template <class T>
Layout Describer::of(const T& record) {
  T blank = record;
  Fields visit{*this};
  fields(visit, blank);
  records[name_of(record)] = visit.made;
  return name_of(record);
}

int compare_layout(const char* path) {
  Layout records = Layout::object();
  Describer{records}.of(Manifest{});
  const Layout made = {{"schema_version", kSchemaVersion}, {"records", records}};
  std::ifstream file(path);
  const auto stated = nlohmann::json::parse(file, nullptr, false);
  if (nlohmann::json(made) == stated) return 0;
  std::cout << made.dump(1) << "\n";
  std::cerr << path << ": the reader's layout, printed above, differs\n";
  return 1;
}

std::string content(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 3 && !std::strcmp(arguments[1], "layout")) return compare_layout(arguments[2]);
  if (count < 3) return 2;
  const bool read_only = !std::strcmp(arguments[1], "read"), program = !std::strcmp(arguments[1], "program");
  for (int k = 2; k < count; ++k) {
    try {
      if (program)
        parse_program(content(arguments[k]), arguments[k], "build the plans again");
      else if (read_only)
        read_manifest(arguments[k]);
      else
        open_bundle(arguments[k]);
      std::cout << "read\n";
    } catch (const DovitError& error) {
      std::cout << error.what() << "\n";
    }
  }
  return 0;
}
