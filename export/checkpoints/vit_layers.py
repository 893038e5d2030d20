"""Layers as other code bases store them, brought into the form of ours.

Key rules give parts of a layer passing names, and `complete_layers` makes ours of them:

    backbone.layers.N.attn.{q,k,v}.{weight,bias}   → attn.qkv, zeros for a bias that one of the three lacks
    backbone.layers.N.attn.qkv.bias_mask           × attn.qkv.bias (DINOv3's keys have no bias)
    backbone.layers.N.mlp.{gate,up}.{weight,bias}  → mlp.fc1, gate first, where there is a gate
    backbone.layers.N.scale1, .scale2 [E]          × attn.proj, mlp.fc2 (LayerScale)
"""

from __future__ import annotations

import torch
from torch import Tensor

from dovit.export.checkpoints.keys import Account
from dovit.export.model import BackboneConfig
from dovit.export.model.config import Activation
from dovit.export.model.rotary import rotary_periods
from dovit.runtime.errors import DovitError


def complete_layers(account: Account, depth: int) -> None:
    """Replace the passing names among the account's weights, and put zeros for the biases of layers that have none."""
    for number in range(depth):
        _Layer(account, f"backbone.layers.{number}.").complete()


def backbone_config(
    account: Account,
    depth: int,
    *,
    heads: int,
    norm_eps: float,
    gated: bool,
    activation: Activation,
    prefix: int,
    rope_theta: float | None = None,
) -> BackboneConfig:
    """The configuration with the sizes of the account's weights, which are ours already, and a final norm; with rotary positions
    where `rope_theta` is given. DovitError where images have other than 3 channels."""
    kernel = account.weights["backbone.patch_embed.weight"]
    if kernel.ndim != 4 or kernel.shape[1] != 3:
        raise DovitError(f"{account.path}: its patch embedding is {list(kernel.shape)}; dovit's images have 3 channels")
    config = BackboneConfig(
        embed_dim=kernel.shape[0],
        depth=depth,
        heads=heads,
        mlp_dim=account.weights["backbone.layers.0.mlp.fc2.weight"].shape[1],
        patch=kernel.shape[-1],
        prefix=prefix,
        norm_eps=norm_eps,
        final_norm=True,
        activation=activation,
        gated=gated,
    )
    return config if rope_theta is None else with_rotary(config, rotary_periods(config.head_dim, rope_theta))


def with_rotary(config: BackboneConfig, periods: tuple[float, ...]) -> BackboneConfig:
    """The same backbone with rotary positions of these periods."""
    return BackboneConfig(**config.model_dump() | {"rotary": periods})


def place_prefix(account: Account, *keys: str) -> int:
    """Class token and registers, the latter of which may not be there, as prefix tokens; how many there are."""
    found = [account.take(key).flatten(0, -2).float() for key in keys if key in account.state]
    account.weights["backbone.prefix"] = torch.cat(found)
    return len(account.weights["backbone.prefix"])


class _Layer:
    def __init__(self, account: Account, at: str) -> None:
        self._account, self._weights, self._at = account, account.weights, at

    def complete(self) -> None:
        self._join("attn.qkv", ("attn.q", "attn.k", "attn.v"))
        gated = f"{self._at}mlp.gate.weight" in self._weights
        self._join("mlp.fc1", ("mlp.gate", "mlp.up") if gated else ("mlp.up",))
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            weight = self._weights.get(f"{self._at}{name}.weight")
            if weight is not None and weight.ndim == 2:
                self._weights.setdefault(f"{self._at}{name}.bias", torch.zeros(weight.shape[0]))
        self._mask()
        self._scale("scale1", "attn.proj")
        self._scale("scale2", "mlp.fc2")

    def _pop(self, name: str) -> Tensor | None:
        return self._weights.pop(self._at + name, None)

    def _join(self, whole: str, parts: tuple[str, ...]) -> None:
        weights = [self._pop(f"{part}.weight") for part in parts]
        biases = [self._pop(f"{part}.bias") for part in parts]
        if all(weight is None for weight in weights):
            return
        missing = [part for part, weight in zip(parts, weights, strict=True) if weight is None]
        if missing:
            raise DovitError(
                f"{self._account.path}: {self._at}{missing[0]} has no weight; is this the whole checkpoint?"
            )
        found = [weight for weight in weights if weight is not None]
        self._weights[f"{self._at}{whole}.weight"] = torch.cat(found)
        if any(bias is not None for bias in biases):
            filled = [
                weight.new_zeros(weight.shape[0]) if bias is None else bias
                for weight, bias in zip(found, biases, strict=True)
            ]
            self._weights[f"{self._at}{whole}.bias"] = torch.cat(filled)

    def _mask(self) -> None:
        mask = self._pop("attn.qkv.bias_mask")
        if mask is None:
            return
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise DovitError(
                f"{self._account.path}: the mask of a key bias holds other values than 0 and 1; get the original"
            )
        self._weights[f"{self._at}attn.qkv.bias"] = self._weights[f"{self._at}attn.qkv.bias"] * mask

    def _scale(self, scale: str, name: str) -> None:
        """y = λ · (W x + b) is (λ W) x + λ b: computed in float64, so that every weight is rounded once."""
        factor = self._pop(scale)
        if factor is None:
            return
        weight, bias = (self._weights[f"{self._at}{name}.{kind}"] for kind in ("weight", "bias"))
        wide = factor.double()
        self._weights[f"{self._at}{name}.weight"] = (weight.double() * wide[:, None]).float()
        self._weights[f"{self._at}{name}.bias"] = (bias.double() * wide).float()
