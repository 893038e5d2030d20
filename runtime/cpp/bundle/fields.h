// The fields of each part of the manifest, once: `visit(name, field)` for a required one, `visit.optional(name, field)`
// for one that keeps its default where it is left out. Reading and describing the layout both walk these.
#pragma once

#include "bundle/manifest.h"

namespace dovit::runtime {

template <class Visitor>
void fields(Visitor& visit, TensorSpec& tensor) {
  visit("name", tensor.name);
  visit("dtype", tensor.dtype);
  visit("shape", tensor.shape);
}

template <class Visitor>
void fields(Visitor& visit, StepMacs& macs) {
  visit.optional("fixed", macs.fixed);
  visit.optional("per_token", macs.per_token);
  visit.optional("per_joined", macs.per_joined);
  visit.optional("per_pair", macs.per_pair);
  visit.optional("fixed_pairs", macs.fixed_pairs);
}

template <class Visitor>
void fields(Visitor& visit, Step& step) {
  visit("name", step.name);
  visit("onnx", step.onnx);
  visit.optional("openvino", step.openvino);
  visit("inputs", step.inputs);
  visit("outputs", step.outputs);
  visit("parameters", step.parameters);
  visit("macs", step.macs);
}

template <class Visitor>
void fields(Visitor& visit, State& state) {
  visit("tokens", state.tokens);
  visit("index", state.index);
  visit("full", state.full);
}

template <class Visitor>
void fields(Visitor& visit, DecisionSpec& decision) {
  visit("layer", decision.layer);
  visit("state", decision.state);
  visit("threshold", decision.threshold);
  visit("confidence", decision.confidence);
  visit("keep", decision.keep);
  visit.optional("lens_kernel", decision.lens_kernel);
}

template <class Visitor>
void fields(Visitor& visit, Source& source) {
  visit("checkpoint", source.checkpoint);
  visit("options", source.options);
  visit("verified", source.verified);
}

template <class Visitor>
void fields(Visitor& visit, FileEntry& file) {
  visit("sha256", file.sha256);
  visit("size", file.size);
}

template <class Visitor>
void fields(Visitor& visit, Profile& profile) {
  visit("least", profile.least);
  visit("best", profile.best);
  visit("most", profile.most);
}

template <class Visitor>
void fields(Visitor& visit, Plan& plan) {
  visit("file", plan.file);
  visit("profiles", plan.profiles);
  visit("parameters", plan.parameters);
  visit("network_layers", plan.network_layers);
  visit("layers", plan.layers);
  visit("attentions", plan.attentions);
  visit("fused_attentions", plan.fused_attentions);
  visit("weight_bytes", plan.weight_bytes);
  visit("activation_bytes", plan.activation_bytes);
  visit("build_seconds", plan.build_seconds);
}

template <class Visitor>
void fields(Visitor& visit, PlanStep& step) {
  visit("name", step.name);
  visit("step", step.step);
  visit("kind", step.kind);
  visit("inputs", step.inputs);
  visit("outputs", step.outputs);
  visit.optional("plan", step.plan);
}

template <class Visitor>
void fields(Visitor& visit, Accuracy& accuracy) {
  visit("scenes", accuracy.scenes);
  visit("lowering", accuracy.lowering);
  visit("differences", accuracy.differences);
  visit("label_agreement", accuracy.label_agreement);
  visit("kept_agreement", accuracy.kept_agreement);
  visit("miou", accuracy.miou);
}

template <class Visitor>
void fields(Visitor& visit, PlanSet& plans) {
  visit("flavour", plans.flavour);
  visit("version", plans.version);
  visit("cuda", plans.cuda);
  visit("compute_capabilities", plans.compute_capabilities);
  visit("precision", plans.precision);
  visit.optional("float32_nodes", plans.float32_nodes);
  visit("batch", plans.batch);
  visit("plugin_version", plans.plugin_version);
  visit("workspace_mib", plans.workspace_mib);
  visit("optimisation_level", plans.optimisation_level);
  visit.optional("user_allocation", plans.user_allocation);
  visit("steps", plans.steps);
  visit.optional("program", plans.program);
  visit.optional("accuracy", plans.accuracy);
}

template <class Visitor>
void fields(Visitor& visit, LeftOut& left) {
  visit("product", left.product);
  visit("cost", left.cost);
}

template <class Visitor>
void fields(Visitor& visit, Quantization& quantization) {
  visit("calibrated", quantization.calibrated);
  visit("products", quantization.products);
  visit("left", quantization.left);
  visit("measured", quantization.measured);
  visit("held_out", quantization.held_out);
  visit("errors", quantization.errors);
  visit("label_agreement", quantization.label_agreement);
  visit("same_fate", quantization.same_fate);
  visit.optional("miou", quantization.miou);
}

template <class Visitor>
void fields(Visitor& visit, Manifest& manifest) {
  visit.optional("schema_version", manifest.schema_version);
  visit("dovit_version", manifest.dovit_version);
  visit("architecture", manifest.architecture);
  visit("image_size", manifest.image_size);
  visit("patch", manifest.patch);
  visit("embed_dim", manifest.embed_dim);
  visit("prefix", manifest.prefix);
  visit.optional("merge", manifest.merge);
  visit.optional("merge_cells", manifest.merge_cells);
  visit("classes", manifest.classes);
  visit("class_names", manifest.class_names);
  visit("palette", manifest.palette);
  visit("mean", manifest.mean);
  visit("std", manifest.std);
  visit("slide_stride", manifest.slide_stride);
  visit.optional("mode", manifest.mode);
  visit.optional("keep_ratio", manifest.keep_ratio);
  visit("precision", manifest.precision);
  visit("thresholds", manifest.thresholds);
  visit("capacities", manifest.capacities);
  visit("dense_macs", manifest.dense_macs);
  visit("steps", manifest.steps);
  visit("decisions", manifest.decisions);
  visit("final", manifest.final);
  visit("taps", manifest.taps);
  visit.optional("plans", manifest.plans);
  visit.optional("source", manifest.source);
  visit.optional("quantization", manifest.quantization);
  visit("files", manifest.files);
}

}  // namespace dovit::runtime
