"""The real timm: its vision transformer and its function for positional embeddings.

timm imports torchvision, of which its vision transformer needs nothing, and torchvision's builds need their own torch's. So
torchvision is replaced by stubs while timm's modules are imported, and timm's __init__ files, which import every model, are
not run.
"""

import importlib
import importlib.util
import sys
import types
from importlib import metadata

import torch


class _Absent(types.ModuleType):
    """A stub for a missing package: everything imported from it is an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})


ABSENT = [
    "torchvision",
    *(f"torchvision.{part}" for part in ("ops", "ops.misc", "transforms", "transforms.functional")),
]


def available() -> str:
    """The reason why timm cannot be used here, or an empty text."""
    return "" if importlib.util.find_spec("timm") else "timm is not installed"


def load() -> tuple[type, object]:
    """timm's VisionTransformer, and its resample_abs_pos_embed."""
    spec = importlib.util.find_spec("timm")
    assert spec and spec.submodule_search_locations
    folder = spec.submodule_search_locations[0]
    before = dict(sys.modules)
    try:
        for name in ABSENT:
            sys.modules[name] = _Absent(name)
        for name, path in (("timm", folder), ("timm.data", folder + "/data")):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [path]
        sys.modules["timm"].__version__ = metadata.version("timm")
        constants = importlib.import_module("timm.data.constants")
        vars(sys.modules["timm.data"]).update({k: v for k, v in vars(constants).items() if k.isupper()})
        vit = importlib.import_module("timm.models.vision_transformer")
        layers = importlib.import_module("timm.layers")
        return vit.VisionTransformer, layers.resample_abs_pos_embed
    finally:  # another test's mmsegmentation must not take the stand-ins for the real packages
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]
