"""The reference model in torch: backbone, decision heads, decoders, and the token pass between them."""

from dovit.export.model.config import BackboneConfig, HeadConfig, ModelConfig
from dovit.export.model.dovit import Decision, DoViT, Output, Policy

__all__ = ["BackboneConfig", "Decision", "DoViT", "HeadConfig", "ModelConfig", "Output", "Policy"]
