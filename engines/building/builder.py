"""Building one plan: the same calls for TensorRT and TensorRT-RTX, typed by the former's stubs.

Polygraphy's environment variable decides which of the two `trt` is; it has to be set before this module is imported.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, PostprocessConfig, Profile
from polygraphy.logger import G_LOGGER
from polygraphy.mod.trt_importer import lazy_import_trt

from dovit.engines.building.build_log import BuildLog
from dovit.engines.building.request import BuildReport, BuildRequest

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = lazy_import_trt()

G_LOGGER.module_severity = G_LOGGER.CRITICAL  # Polygraphy's own remarks; TensorRT's go to a BuildLog
Report = Callable[[BuildReport], None]


def build_plan(request: BuildRequest, log: BuildLog, report: Report) -> BuildReport:
    """Build one plan into its file, and call `report` with the progress. Raises what the builder raises; `log` has the reason."""
    start = time.perf_counter()
    logger = _Logger(log)
    if request.plugin_library:
        trt.get_plugin_registry().load_library(request.plugin_library)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed())
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request.onnx):
        errors = [parser.get_error(k).desc() for k in range(parser.num_errors)]
        raise ValueError(errors[0] if errors else log.reason)
    network_layers, attentions = network.num_layers, _attentions(network)

    save = request.timing_cache if request.flavour == "tensorrt" else None
    flag = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None) if request.user_allocation else None
    config = _config(request, report)
    if flag is not None:
        config = PostprocessConfig(config, lambda _builder, _network, made: made.set_flag(flag))
    engine = EngineBytesFromNetwork((builder, network), config, save_timing_cache=save)()
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
        user_allocation=flag is not None,
    )


def _strongly_typed() -> int:
    """The flag, where there is a choice: TensorRT 11 has no other kind of network."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _config(request: BuildRequest, report: Report) -> Any:
    """Polygraphy's loader of a builder configuration: all in which the flavours' builders differ."""
    pools = {}
    if request.workspace_mib is not None:
        pools[trt.MemoryPoolType.WORKSPACE] = request.workspace_mib << 20
    common: dict[str, Any] = {
        "profiles": [_profile(shapes) for shapes in request.profiles] or None,
        "memory_pool_limits": pools or None,
        "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,  # then the builder lists the layers as well
        "builder_optimization_level": request.optimisation_level,
        "max_aux_streams": 0,  # a plan is captured into a graph that allows no second stream
        "progress_monitor": _Monitor(report),
    }
    if request.flavour == "tensorrt-rtx":
        pairs = [tuple(map(int, c.split("."))) for c in request.compute_capabilities] or None
        return CreateConfigRTX(compute_capabilities=pairs, **common)
    config = CreateConfig(tf32=True, load_timing_cache=request.timing_cache, **common)
    library = request.plugin_library
    if library is None:
        return config

    def carry(_builder: trt.Builder, _network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> None:
        config.plugins_to_serialize = [library]

    return PostprocessConfig(config, carry)


def _profile(shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]) -> Profile:
    profile = Profile()
    for name, (least, best, most) in shapes.items():
        profile.add(name, least, best, most)
    return profile


def _attentions(network: trt.INetworkDefinition) -> set[str]:
    """The names of the attention operations: softmaxes whose result goes into a product."""
    readers: dict[str, list[trt.ILayer]] = {}
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    for layer in layers:
        for tensor in filter(None, (layer.get_input(k) for k in range(layer.num_inputs))):
            readers.setdefault(tensor.name, []).append(layer)

    def feeds_product(layer: trt.ILayer) -> bool:
        users = readers.get(layer.get_output(0).name, [])
        through = [
            user for user in users if user.type == trt.LayerType.SHUFFLE
        ]  # added by the parser, they only reshape
        return any(u.type == trt.LayerType.MATRIX_MULTIPLY for u in users) or any(map(feeds_product, through))

    return {layer.name for layer in layers if layer.type == trt.LayerType.SOFTMAX and feeds_product(layer)}


class _Logger(trt.ILogger):
    """Hands TensorRT's messages to a BuildLog."""

    def __init__(self, build_log: BuildLog) -> None:
        trt.ILogger.__init__(self)
        self._build_log = build_log

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        self._build_log.add(msg, is_error=severity <= trt.ILogger.Severity.ERROR)


class _Monitor(trt.IProgressMonitor):
    """Reports the fraction of the outermost phase: phases are nested, and only the outermost has the total."""

    def __init__(self, report: Report) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report = report
        self._outermost: str | None = None
        self._steps = 1

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if self._outermost is None:
            self._outermost, self._steps = phase_name, max(num_steps, 1)

    def step_complete(self, phase_name: str, step: int) -> bool:
        if phase_name == self._outermost:
            self._report(BuildReport(kind="progress", fraction=min((step + 1) / self._steps, 1.0)))
        return True

    def phase_finish(self, phase_name: str) -> None:
        if phase_name == self._outermost:
            self._outermost = None
