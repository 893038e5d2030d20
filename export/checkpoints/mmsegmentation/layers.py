"""norm_cfg, act_cfg and conv_cfg: what mmcv builds layers from."""

from __future__ import annotations

from dovit.export.checkpoints.section import Section
from dovit.export.model.config import Activation, ConvConfig

BATCH_NORMS = ("BN", "BN2d", "SyncBN", "MMSyncBN", "BatchNorm2d", "SyncBatchNorm", "NaiveSyncBatchNorm")
LAYER_NORMS = ("LN", "LayerNorm")
UNKNOWN_NORM = "dovit computes BatchNorm and no norm here; another one needs a decoder of its own"


def layer_norm_eps(
    section: Section,
    key: str,
    default: float,
    *,
    assumed: tuple[str, float] | None = None,
    option: tuple[str, float | None] | None = None,
) -> float:
    """The epsilon of the LayerNorms that `key` describes; `default`: mmsegmentation's where the key is missing. Where the
    key is there without an epsilon, mmcv takes 1e-5."""
    norm = section.section(key)
    if section.known or key in section:
        if section.get(key, ...) is None:
            raise section.refusal(key, "mmsegmentation's transformers always have a LayerNorm")
        if key in section and norm.type("LN" if section.is_option(key) else None) not in LAYER_NORMS:
            raise section.refusal(key, "dovit computes LayerNorm here")
    norm.ignore("requires_grad")
    eps = norm.choose(
        "eps",
        1e-5 if key in section else default,
        assumed=assumed,
        option=option,
        name=norm.at("eps").removeprefix("model."),
    )
    norm.finish()
    return _positive(norm, "eps", eps)


def conv_config(section: Section, *, batch_norm: bool, default_act: str | None = "ReLU") -> ConvConfig:
    """What follows the convolutions of a head or neck: conv_cfg, norm_cfg and act_cfg. `batch_norm`: whether the weights have
    one."""
    conv = section.section("conv_cfg")
    if conv.type("Conv2d") not in ("Conv2d", "Conv"):
        raise section.refusal("conv_cfg", "dovit computes ordinary convolutions")
    conv.finish()
    norm, eps = section.section("norm_cfg"), 1e-5
    if norm.content:
        if norm.type("BN" if section.is_option("norm_cfg") else None) not in BATCH_NORMS:
            raise section.refusal("norm_cfg", UNKNOWN_NORM)
        norm.ignore("requires_grad", "momentum")
        eps = _positive(norm, "eps", norm.choose("eps", 1e-5))
        norm.finish()
    elif batch_norm and not section.known:
        eps = norm.choose("eps", 1e-5, assumed=("torch's default", 1e-5))
    if section.known and bool(norm.content) != batch_norm:
        found = "a BatchNorm" if batch_norm else "none"
        raise section.refusal("norm_cfg", f"the weights have {found}; is this the configuration of this checkpoint?")
    return ConvConfig(batch_norm=batch_norm, bn_eps=eps, activation=activation(section, default_act))


def activation(section: Section, default: str | None) -> Activation:
    """The activation that act_cfg describes; `default` is the type where it is missing, None for none."""
    if "act_cfg" in section and section.get("act_cfg") is None:
        config = Activation(kind="none")
    else:
        act = section.section("act_cfg")
        act.ignore("inplace")
        kind = act.type(default if "act_cfg" not in section or section.is_option("act_cfg") else None)
        if kind is None and "act_cfg" in section:
            raise section.refusal("act_cfg", "has no type")
        match kind:
            case "ReLU":
                config = Activation(kind="relu")
            case "LeakyReLU":
                slope = act.get("negative_slope", 0.01)
                if isinstance(slope, bool) or not isinstance(slope, int | float):
                    raise act.refusal("negative_slope", "not a number")
                config = Activation(kind="leaky_relu", slope=slope)
            case "GELU":
                act.only("approximate", "none", "tanh", default="none", reason="torch's GELU knows none and tanh")
                config = Activation(kind="gelu_tanh" if act.get("approximate") == "tanh" else "gelu")
            case None:
                config = Activation(kind="none")
            case _:
                raise section.refusal("act_cfg", "dovit computes ReLU, LeakyReLU, GELU and none")
        act.finish()
    slope_text = f" {config.slope:g}" if config.kind == "leaky_relu" else ""
    source = (section.place("act_cfg"), f"{config.kind}{slope_text}")
    section.settings.choose(
        section.at("act_cfg").removeprefix("model."),
        option=source if section.is_option("act_cfg") else None,
        file=source if section.known else None,
        assumed=("as mmsegmentation's", source[1]),
    )
    return config


def _positive(section: Section, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise section.refusal(key, "not an epsilon from 0 to 1")
    return float(value)
