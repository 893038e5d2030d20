"""The tables of docs/results/camvid.md from the JSON of camvid.sh: `python -m dovit.benchmarks.camvid_tables OUT [--json FILE]`.

A number of several seeds is their mean, with the least and the greatest beside it. Runs that are not there are left out.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from dovit.evaluation.cli.outputs import json_text
from dovit.runtime.cli.app import run_command
from dovit.runtime.errors import DovitError

Settings = dict[str, list[dict[str, Any]]]  # by the setting's name, one of each seed
ROUNDS = ("ξ = 0.9", "ξ = 0.95", "ξ = 0.98")  # of DoViT's sweep, after each round of training
SPEED = "speed.json"  # of dovit-eval --dense, on a machine that does nothing else
ROWS = {  # run, and the setting that its row shows; None: the only one
    "dense": ("dense", None),
    "dense, as many further steps": ("control", None),
    "settled: dense, as many further steps at 0.3 of the learning rate": ("settled", None),
    "settled, as many further steps again": ("further", None),
    "settled, adapted without labels, then trained, ξ = 0.9/0.92/0.94/0.95": ("tuned", "ξ = 0.9/0.92/0.94/0.95"),
    "settled, adapted without labels, ξ = 0.9/0.95/0.98/0.98": ("adapted_settled", "ξ = 0.9/0.95/0.98/0.98"),
    "DoViT, ξ = 0.95": ("dovit", "ξ = 0.95"),
    "DoViT's weights, the same ratio in every image": ("dovit", "fixed, as ξ = 0.95"),
    "DynamicViT": ("dynamicvit", None),
    "heads only, ξ = 0.98": ("heads", "ξ = 0.98"),
    "heads only, without a norm, ξ = 0.98": ("plain", "ξ = 0.98"),
    "adapted without labels, ξ = 0.9/0.95/0.98/0.98": ("adapted", "ξ = 0.9/0.95/0.98/0.98"),
    "adapted, then trained with labels, ξ = 0.8/0.85/0.9/0.92": ("trained", "ξ = 0.8/0.85/0.9/0.92"),
}
PARTS = {
    "neither merging nor self-distillation, ξ = 0.95": ("nothing", "ξ = 0.95"),
    "merging, ξ = 0.95": ("merging", "ξ = 0.95"),
    "both (DoViT), ξ = 0.95": ("dovit", "ξ = 0.95"),
    "merging by cell in the place of the class token, ξ = 0.95": ("cells", "ξ = 0.95"),
}


def read_runs(folder: Path) -> dict[str, Settings]:
    """What was evaluated, by the run's name without its seed. Raises DovitError where nothing was."""
    runs: dict[str, Settings] = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*.json")):
        if file.name == SPEED:
            continue
        found = re.fullmatch(r"(\w+?)(?:-(\d+))?", file.stem)
        content = json.loads(file.read_text(encoding="utf-8"))
        if found is None or not isinstance(content, dict) or "settings" not in content:
            continue
        for setting in content["settings"]:
            # what each class reaches is the report's
            kept = {name: value for name, value in setting.items() if name != "classes"}
            runs[found[1]][setting["name"]].append({"seed": int(found[2] or 0), **kept})
    if not runs:
        raise DovitError(f"{folder} holds no JSON of dovit-eval: run benchmarks/camvid.sh with this folder first")
    return runs


def spread(values: Sequence[float], digits: int = 1, scale: float = 1) -> str:
    """Mean, and the range where there are several."""
    shown = [value * scale for value in values]
    mean = f"{sum(shown) / len(shown):.{digits}f}"
    return mean if len(shown) == 1 else f"{mean} ({min(shown):.{digits}f}–{max(shown):.{digits}f})"


def only_setting(runs: dict[str, Settings], run: str) -> list[dict[str, Any]]:
    """What the one setting of `run` reaches, by seed; nothing where it was not evaluated. Raises DovitError where there are
    several."""
    settings = runs.get(run, {})
    if len(settings) > 1:
        raise DovitError(
            f"{run}: its evaluations have {len(settings)} settings ({', '.join(settings)}), and the table shows one: evaluate "
            f"its checkpoints again without --sweep"
        )
    return next(iter(settings.values()), [])


def table(runs: dict[str, Settings], rows: Mapping[str, tuple[str, str | None]]) -> list[str]:
    """Markdown lines of the rows that there are."""
    lines = [
        "| | seeds | mIoU | PA | mPA | kept | MACs, paper | MACs, true |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, (run, name) in rows.items():
        found = runs.get(run, {}).get(name, []) if name else only_setting(runs, run)
        if not found:
            continue
        kept = "/".join(f"{sum(one) / len(one):.0f}" for one in zip(*(s["kept"] for s in found), strict=True))
        quality = (spread([s[metric] for s in found]) for metric in ("mIoU", "PA", "mPA"))
        macs = (spread([s[f"macs_ratio_{count}"] for s in found], 0, 100) + " %" for count in ("paper", "true"))
        lines.append(f"| {title} | {len(found)} | {' | '.join(quality)} | {kept or 'all'} | {' | '.join(macs)} |")
    return lines


def rounds_table(runs: dict[str, Settings]) -> list[str]:
    """Markdown lines of DoViT and the dense model after each round of training; none where there was but one."""
    header = ["rounds", "seeds", "dense", *(cell for name in ROUNDS for cell in (f"DoViT, {name}", "MACs, paper"))]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for number in count(1):
        suffix = "" if number == 1 else str(number)
        trained, control = runs.get(f"dovit{suffix}", {}), only_setting(runs, f"control{suffix}")
        if any(name not in trained for name in ROUNDS):
            break
        dense = spread([found["mIoU"] for found in control]) if control else "–"
        cells = [str(number), str(len(trained[ROUNDS[0]])), dense]
        for name in ROUNDS:
            cells.append(spread([found["mIoU"] for found in trained[name]]))
            cells.append(spread([found["macs_ratio_paper"] for found in trained[name]], 0, 100) + " %")
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 3 else []


def stopped_tables(runs: dict[str, Settings]) -> list[list[str]]:
    """For each run that was evaluated with --stopped: how many of the stopped tokens are wrong, over all seeds, and behind it in
    which group most of them are. Settings of which none is wrong are left out."""
    tables = []
    for run, settings in runs.items():
        # setting → grouping → group → [wrong, stopped]
        counts: dict[str, dict[str, dict[str, list[int]]]] = {}
        for name, found in settings.items():
            told = [one["stopped"] for one in found if "stopped" in one]
            if any(row["wrong"] for one in told for row in one["decisions"]):
                counts[name] = {
                    "decision": _summed([{str(n): row for n, row in enumerate(t["decisions"], 1)} for t in told]),
                    "class": _summed([t["classes"] for t in told]),
                    "distance from an edge": _summed([t["distances"] for t in told]),
                }
        if not counts:
            continue
        lines = [
            f"| {run}: stopped wrongly, of all stopped | {' | '.join(counts)} |",
            "| --- |" + " --- |" * len(counts),
        ]
        lowest = next(iter(counts.values()))  # ξ, at which most stop
        rows = [(title, group) for title, groups in lowest.items() for group, (_, stopped) in groups.items() if stopped]
        lines += [
            f"| {title} {group} | "
            + " | ".join(_share(*by_setting[title].get(group, [0, 0])) for by_setting in counts.values())
            + " |"
            for title, group in rows
        ]
        lines.append("")
        for name, by_setting in counts.items():
            total = sum(wrong for wrong, _ in by_setting["decision"].values())
            most = [
                f"{title} {group} ({100 * wrong / total:.0f} %)"
                for title, groups in by_setting.items()
                for group, (wrong, _) in [max(groups.items(), key=lambda item: item[1][0])]
            ]
            lines.append(f"Most of the {total} at {name}: {', '.join(most)}.")
        tables.append(lines)
    return tables


def _summed(groupings: Sequence[dict[str, dict[str, int]]]) -> dict[str, list[int]]:
    """Wrong and stopped tokens of each group, over the seeds."""
    summed: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for grouping in groupings:
        for group, row in grouping.items():
            summed[group][0] += row["wrong"]
            summed[group][1] += row["stopped"]
    return dict(summed)


def _share(wrong: int, stopped: int) -> str:
    return f"{wrong} of {stopped} ({wrong / stopped:.2%})".replace("%", " %") if stopped else "–"


def speed_table(evaluated: dict[str, Any]) -> list[str]:
    """Figure 4 as a table, from the JSON of dovit-eval --sweep --dense."""
    lines = [
        "| | mIoU | kept | MACs, paper | ms | MAC ratio, true | speed-up | of the ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in [evaluated["dense"], *(one for one in evaluated["settings"] if one["counts"] is None)]:
        ratio, speedup = 1 / row["macs_ratio_true"], row["speedup_median"]
        kept = "/".join(f"{count:.0f}" for count in row["kept"]) or "all"
        lines.append(
            f"| {row['name']} | {row['mIoU']:.1f} | {kept} | {row['macs_ratio_paper']:.0%} | {row['latency_ms_median']:.1f} "
            f"| {ratio:.2f} | {speedup:.2f} | {speedup / ratio:.2f} |".replace("%", " %")
        )
    return lines


def command(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="camvid.sh's folder.")],
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all settings there.")] = None,
) -> None:
    """Print Table 1, Table 3, the rounds, the sweeps, which tokens stop wrongly, and the speed as Markdown."""
    runs = read_runs(folder)
    if out is not None:
        out.write_text(json_text(runs, indent=1) + "\n", encoding="utf-8")
    tables = [table(runs, ROWS), table(runs, PARTS), rounds_table(runs)]
    for run, settings in runs.items():
        rows: dict[str, tuple[str, str | None]] = {f"{run}, {n}": (run, n) for n in settings if n.startswith("ξ")}
        if len(rows) > 1:
            tables.append(table(runs, rows))
    tables += stopped_tables(runs)
    if (folder / SPEED).exists():
        tables.append(speed_table(json.loads((folder / SPEED).read_text(encoding="utf-8"))))
    for lines in tables:
        if len(lines) > 2:
            print("\n".join(lines), end="\n\n")


def main() -> None:
    """Entry point."""
    run_command(command, "python -m dovit.benchmarks.camvid_tables")


if __name__ == "__main__":
    main()
