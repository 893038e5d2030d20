"""The process that builds plans: `python -m dovit.engines.worker`. Reads BuildRequests, a line each, writes BuildReports.

A process of its own, because Polygraphy serves one flavour a process, because a builder that meets something it cannot
take may end the process it runs in, and because several can then work side by side.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path
from typing import IO, Any

from dovit.engines.build_log import BuildLog
from dovit.engines.flavours import FLAVOURS, load_module
from dovit.engines.request import BuildReport, BuildRequest


def main() -> None:
    """Serve requests until there are no more."""
    # what a library prints goes to stderr: stdout is for reports
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = BuildRequest.model_validate_json(line)
        log = BuildLog()
        try:
            report = build_plan(request, log, reports)
        except Exception as error:  # Polygraphy's, TensorRT's and pybind's own
            what = log.reason if log.errors else " ".join(str(error).split())[:400] or type(error).__name__
            report = BuildReport(kind="failed", error=what)
        print(report.model_dump_json(), file=reports, flush=True)


def build_plan(request: BuildRequest, log: BuildLog, reports: IO[str]) -> BuildReport:
    """Build one plan into its file. Raises what the builder raises, with `log` saying why."""
    facts = FLAVOURS[request.flavour]
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if request.flavour == "tensorrt-rtx" else "0"
    trt: Any = load_module(request.flavour)
    from polygraphy.backend.trt import EngineBytesFromNetwork
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL  # Polygraphy's own remarks; TensorRT's go to `log`
    logger = _logger(trt, log)
    start = time.perf_counter()
    if request.plugin_library:
        ctypes.CDLL(request.plugin_library)
        trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT 11 knows no other network
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request.onnx):
        errors = [parser.get_error(k).desc() for k in range(parser.num_errors)]
        raise ValueError(errors[0] if errors else log.reason)
    network_layers, attentions = network.num_layers, _attentions(trt, network)

    engine = EngineBytesFromNetwork(
        (builder, network), _config(trt, request, reports),
        save_timing_cache=request.timing_cache if facts.timing_cache else None,
    )()  # fmt: skip
    Path(request.out).write_bytes(engine)
    return BuildReport(
        kind="done",
        fraction=1.0,
        network_layers=network_layers,
        layers=log.layers,
        attentions=len(attentions),
        fused_attentions=len(attentions & log.fused),
        weight_bytes=log.weight_bytes,
        activation_bytes=log.activation_bytes,
        seconds=round(time.perf_counter() - start, 3),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _config(trt: Any, request: BuildRequest, reports: IO[str]) -> Any:
    """Polygraphy's loader of a builder configuration."""
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, Profile

    profiles = []
    for shapes in request.profiles:
        profile = Profile()
        for name, (least, best, most) in shapes.items():
            profile.add(name, least, best, most)
        profiles.append(profile)
    pools = {}
    if request.workspace_mib is not None:
        pools[trt.MemoryPoolType.WORKSPACE] = request.workspace_mib << 20
    common = {
        "profiles": profiles or None,
        "memory_pool_limits": pools or None,
        "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,  # then the builder lists the layers as well
        "builder_optimization_level": request.optimisation_level,
        "max_aux_streams": 0,  # a plan is captured into a graph that allows no second stream
        "progress_monitor": _monitor(trt, reports) if hasattr(trt, "IProgressMonitor") else None,
    }
    if request.flavour == "tensorrt-rtx":
        pairs = [tuple(map(int, c.split("."))) for c in request.compute_capabilities] or None
        return CreateConfigRTX(compute_capabilities=pairs, **common)
    config = CreateConfig(tf32=True, load_timing_cache=request.timing_cache, **common)
    if not request.plugin_library:
        return config
    library = request.plugin_library

    def carry(_builder: Any, _network: Any, config: Any) -> None:
        config.plugins_to_serialize = [library]

    return PostprocessConfig(config, carry)


def _attentions(trt: Any, network: Any) -> set[str]:
    """The names of the attention operations: softmaxes whose result goes into a product."""
    readers: dict[str, list[Any]] = {}
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    for layer in layers:
        for tensor in filter(None, (layer.get_input(k) for k in range(layer.num_inputs))):
            readers.setdefault(tensor.name, []).append(layer)

    def feeds_product(layer: Any) -> bool:
        users = readers.get(layer.get_output(0).name, [])
        through = [user for user in users if user.type == trt.LayerType.SHUFFLE]  # the parser's, which move nothing
        return any(u.type == trt.LayerType.MATRIX_MULTIPLY for u in users) or any(map(feeds_product, through))

    return {layer.name for layer in layers if layer.type == trt.LayerType.SOFTMAX and feeds_product(layer)}


def _logger(trt: Any, log: BuildLog) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(message, is_error=severity <= trt.ILogger.Severity.ERROR)

    return Logger()


def _monitor(trt: Any, reports: IO[str]) -> Any:
    """Reports the fraction of the outermost phase: phases nest, and only the outermost knows how much is left."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost: str | None = None
            self.steps = 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self.outermost is None:
                self.outermost, self.steps = phase_name, max(num_steps, 1)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self.outermost:
                fraction = min((step + 1) / self.steps, 1.0)
                print(BuildReport(kind="progress", fraction=fraction).model_dump_json(), file=reports, flush=True)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.outermost:
                self.outermost = None

    return Monitor()


if __name__ == "__main__":
    main()
