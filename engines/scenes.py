"""Street scenes for the accuracy check: pictures with flat regions, edges and small things, at any size."""

from __future__ import annotations

from collections.abc import Sequence

from dovit.engines.accuracy import Scene
from dovit.engines.add import SCENES
from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.palettes import palette_for
from dovit.scenes import scene

FIRST = 3_000_000  # apart from those that models are trained and evaluated on


def street_scenes(manifest: Manifest, count: int = SCENES) -> Sequence[Scene]:
    """`count` scenes of the bundle's size, with labels where the bundle's classes are the scenes' (Cityscapes)."""
    height, width = manifest.image_size
    names, _ = palette_for("cityscapes", 19)
    labelled = manifest.class_names == names
    made = (scene(FIRST + k, height, width) for k in range(count))
    return [Scene(image, labels if labelled else None) for image, labels in made]
