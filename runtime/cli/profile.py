"""`dovit-run --profile`: times every operation of a pass on a GPU instead of writing pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dovit.runtime.bundle.manifest import Schedule
from dovit.runtime.cli.output import output_console
from dovit.runtime.cli.profile_tables import print_profile
from dovit.runtime.errors import UsageError
from dovit.runtime.gpu.chain import GpuChain
from dovit.runtime.images import read_image
from dovit.runtime.resize import resize_image
from dovit.runtime.session import Session

ROUNDS = 20


def profile_images(
    session: Session, files: Sequence[Path], thresholds: Sequence[float], schedule: Schedule, *, as_json: bool
) -> None:
    """A table, or a JSON object a line, for each image. Raises UsageError without a GPU."""
    chain, console = session.chain, output_console()
    if not isinstance(chain, GpuChain):
        raise UsageError(
            f"--profile times plans on a GPU, and the backend {session.backend} runs none: give --backend tensorrt-rtx"
        )
    session.capacities(schedule)  # refuses one that plans do not have
    for file in files:
        pixels = read_image(file)
        if not chain.accepts_size((pixels.shape[0], pixels.shape[1])):
            pixels = resize_image(pixels, session.manifest.image_size)
        batch = np.repeat(pixels[None], chain.plans.batch, axis=0)
        profile = chain.profile(batch, thresholds, ROUNDS, exact=schedule == "exact")
        if as_json:
            print(json.dumps({"image": str(file), "plans": chain.plans.name, **profile.as_dict()}), flush=True)
        else:
            print_profile(console, profile, f"{file}, {chain.plans.name} plans, batch {profile.batch}")
