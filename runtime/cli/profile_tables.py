"""Tables of a profile of a pass on a GPU."""

from __future__ import annotations

from rich.console import Console

from dovit.runtime.cli.output import escaped, new_table, print_table
from dovit.runtime.gpu.profile import Profile


def print_profile(console: Console, profile: Profile, title: str) -> None:
    """Each step with its share and its arithmetic, and below it its operations with what they move."""
    table = new_table("operation", "tokens", "µs", "share", "MB", "GB/s", "of a\ncopy", "GFLOP", "TFLOP/s")
    total = profile.sum_us
    steps = {step.name: step for step in profile.steps}
    shown: set[str] = set()
    for operation in profile.operations:
        step = steps.get(operation.step) if operation.step else None
        if step and step.name not in shown:
            shown.add(step.name)
            table.add_row(
                f"[bold]{escaped(step.name)}[/bold]",
                "",
                f"[bold]{step.us:.1f}[/bold]",
                f"{step.us / total:.1%}",
                f"{step.bytes / 1e6:.2f}",
                "",
                "",
                f"{step.flops / 1e9:.2f}",
                f"{step.tflop_per_s:.1f}",
            )
        kind = "" if operation.kind in operation.name else f" [dim]{operation.kind}[/dim]"
        table.add_row(
            f"  {escaped(operation.name)}{kind}" if step else escaped(operation.name),
            str(operation.tokens),
            f"{operation.us:.1f}",
            f"{operation.us / total:.1%}",
            f"{operation.bytes / 1e6:.2f}",
            f"{operation.gb_per_s:.0f}",
            f"{profile.of_a_copy(operation):.0%}",
            "",
            "",
        )
    print_table(console, title, table, _caption(profile))


def _caption(profile: Profile) -> str:
    kept = "/".join(map(str, profile.kept)) or "all"
    text = (
        f"kept {kept}, {profile.schedule}; medians of {profile.rounds} rounds; all operations {profile.sum_us:.1f} µs"
    )
    text += f"; a copy within the GPU {profile.copy_gb_per_s:.0f} GB/s; {profile.device_bytes / 2**20:.0f} MiB on it"
    if profile.launch_us is None:
        return text
    return f"{text}; the same pass in {profile.mode} mode {profile.launch_us:.1f} µs"
