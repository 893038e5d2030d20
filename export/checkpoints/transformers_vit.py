"""Settings that several of transformers' ViTs have in common (DINOv2, DINOv3, EoMT), each checked against the weights."""

from __future__ import annotations

from dovit.export.checkpoints.keys import Account
from dovit.export.checkpoints.options import ReadOptions
from dovit.export.checkpoints.section import Section
from dovit.export.model import BackboneConfig

TRAINING_KEYS = (
    "drop_path_rate",
    "initializer_range",
    "layerscale_value",  # what LayerScale starts from
)
ROTARY_AUGMENTATIONS = ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")
# which outputs a backbone class returns: a head on this backbone takes the last layer's
BACKBONE_OUTPUTS = ("out_features", "out_indices", "stage_names", "apply_layernorm", "reshape_hidden_states")


def read_attention_heads(section: Section, options: ReadOptions, default: int) -> int:
    """`num_attention_heads`."""
    heads = section.choose("num_attention_heads", default, option=("--heads", options.heads))
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise section.refusal("num_attention_heads", "not a whole number from 1 up")
    return heads


def read_rope_theta(section: Section) -> float:
    """`rope_theta`, the base of the rotary periods."""
    theta = section.choose("rope_theta", 100.0)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 1 < theta < 1e9:
        raise section.refusal("rope_theta", "not a number above 1")
    return float(theta)


def check_biases(section: Section, account: Account, layer: str) -> None:
    """DINOv3's `query_bias`, `key_bias` and so on belong to these weights, before they are renamed. `layer`: a pattern."""
    for key, projection, default in (
        ("query_bias", r"attention\.q_proj", True),
        ("key_bias", r"attention\.k_proj", False),
        ("value_bias", r"attention\.v_proj", True),
        ("proj_bias", r"attention\.o_proj", True),
        ("mlp_bias", r"mlp\.down_proj", True),
    ):
        section.same(key, account.has(layer + projection + r"\.bias"), default)


def read_gated(section: Section, key: str, found: bool) -> bool:
    """Whether the MLPs are gated, as the flag `key` says; DovitError where the weights, as `found`, say otherwise."""
    if section.flag(key, False) != found:
        raise section.refusal(key, "the weights say otherwise; is this the configuration of this checkpoint?")
    return found


def check_mlp_ratio(section: Section, config: BackboneConfig) -> None:
    """mlp_ratio belongs to these weights: of SwiGLU two thirds are taken, rounded up to a multiple of 8."""
    ratio = section.get("mlp_ratio", 4)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1000:
        raise section.refusal("mlp_ratio", "not a number above 0")
    width = int(config.embed_dim * ratio)
    width = (int(width * 2 / 3) + 7) // 8 * 8 if config.gated else width
    if width != config.mlp_dim:
        raise section.refusal("mlp_ratio", f"the weights have {config.mlp_dim} channels there, and not {width}")
