"""A plot as the paper's Figure 4: accuracy, cost and speed against ξ, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dovit.evaluation.evaluate import Outcome
from dovit.evaluation.segmenter import join_thresholds
from dovit.runtime.errors import UsageError
from dovit.runtime.files import atomic_write


def check_plot(path: Path) -> None:
    """Raise UsageError now rather than after the evaluation, where `path` cannot be drawn to."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib: pip install 'dovit[training]'") from None
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:] not in known:
        raise UsageError(f"--plot {path}: give a name that ends in one of .{', .'.join(sorted(known))}")


def plot(outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """Draw the outcomes of a sweep, and beside them those of fixed ratios, into an image file.

    Raises DovitError where the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    swept = sorted((o for o in outcomes if o.setting.counts is None), key=lambda o: o.setting.thresholds)
    fixed = sorted((o for o in outcomes if o.setting.counts is not None), key=lambda o: o.macs_ratio)
    labels = [join_thresholds(o.setting.thresholds) or "1" for o in swept]
    places = range(len(swept))
    miou = [o.confusion.summary()["mIoU"] for o in swept]
    cost = [100 * o.macs_ratio[0] for o in swept]
    base, speeds = speedups(swept)

    spaced = ConstrainedLayoutEngine(wspace=0.08)  # the left of the three has labels on both sides
    figure = Figure(figsize=(14, 4), layout=spaced)
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    left.plot(places, miou, "o-", color="tab:blue")
    left.set_ylabel("mIoU, %", color="tab:blue")
    macs = left.twinx()
    macs.plot(places, cost, "s--", color="tab:red")
    macs.set_ylabel("MACs (paper's count), % of dense", color="tab:red")
    middle.plot(places, speeds, "o-", color="tab:green", label="measured")
    middle.plot(places, [1 / o.macs_ratio[1] for o in swept], ":", color="grey", label="dense MACs / MACs (true count)")
    middle.set_ylabel(f"speed-up over {base}")
    middle.legend()
    for axes in (left, middle):
        axes.set_xticks(list(places), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_xlabel("ξ")
    right.plot(cost, miou, "o-", color="tab:blue", label="token pass")
    if fixed:
        right.plot(
            [100 * o.macs_ratio[0] for o in fixed],
            [o.confusion.summary()["mIoU"] for o in fixed],
            "s--",
            color="tab:orange",
            label="fixed ratio",
        )
    right.set_xlabel("MACs (paper's count), % of dense")
    right.set_ylabel("mIoU, %")
    right.legend()
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110, format=path.suffix[1:])


def speedups(swept: Sequence[Outcome]) -> tuple[str, list[float]]:
    """Of each outcome, and what it is over: medians over the images, or, in a sweep without ξ = 1, the ratio of the last
    outcome's median latency to its own."""
    if swept[-1].speedup_over is not None:
        return swept[-1].speedup_over, [o.speedup.quantile(0.5) for o in swept]
    slowest = swept[-1].latency.quantile(0.5)
    return swept[-1].setting.name, [slowest / o.latency.quantile(0.5) for o in swept]
