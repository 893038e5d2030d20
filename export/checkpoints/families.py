"""The families of checkpoints that dovit reads, in the order in which they are tried."""

from __future__ import annotations

from dovit.export.checkpoints import dinov2, dinov3, eomt, mmsegmentation, own, rstrudel, timm
from dovit.export.checkpoints.family import Family

FAMILIES: tuple[Family, ...] = (
    own.FAMILY,
    mmsegmentation.FAMILY,
    rstrudel.FAMILY,
    dinov2.FAMILY,
    dinov3.FAMILY,
    eomt.FAMILY,
    timm.FAMILY,
)
