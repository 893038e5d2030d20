"""What a model is: everything that its weights do not say. Stored in checkpoints as JSON."""

from dovit.export.model.config.backbone import SIZES, BackboneConfig
from dovit.export.model.config.decisions import (
    CorrectionConfig,
    HeadConfig,
    LensConfig,
    RefinementConfig,
    paper_decision_layers,
)
from dovit.export.model.config.decoders import (
    DecoderConfig,
    EomtDecoder,
    SegmenterLinearDecoder,
    SegmenterMaskDecoder,
    SetrMlaDecoder,
    SetrUpDecoder,
)
from dovit.export.model.config.model import HALF, IMAGENET, ModelConfig
from dovit.export.model.config.parts import Activation, ConvConfig, FcnConfig, Part

__all__ = [
    "HALF",
    "IMAGENET",
    "SIZES",
    "Activation",
    "BackboneConfig",
    "ConvConfig",
    "CorrectionConfig",
    "DecoderConfig",
    "EomtDecoder",
    "FcnConfig",
    "HeadConfig",
    "LensConfig",
    "ModelConfig",
    "Part",
    "RefinementConfig",
    "SegmenterLinearDecoder",
    "SegmenterMaskDecoder",
    "SetrMlaDecoder",
    "SetrUpDecoder",
    "paper_decision_layers",
]
