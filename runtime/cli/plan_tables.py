"""What the user reads about plans."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanSet


def print_plans(console: Console, manifest: Manifest, plans: PlanSet) -> None:
    """Each plan with its profiles, size, layers and build time; the operations between them by name."""
    targets = ", ".join(plans.compute_capabilities) or "portable"
    title = f"{plans.flavour} {plans.version}, {plans.precision}, batch {plans.batch}, compute capability {targets}"
    table = Table(title=title, title_justify="left")
    for name in ("part", "tokens kept", "MB", "scratch, MB", "layers", "fused attentions", "built in, s"):
        table.add_column(name, justify="left" if name in ("part", "tokens kept") else "right")
    for step in plans.steps:
        plan = step.plan
        if plan is None:
            table.add_row(f"[dim]{step.name}[/dim]", "[dim]by the runtime[/dim]")
            continue
        ranges = ", ".join(f"{p.least}…{p.most}" for p in plan.profiles) or "fixed"
        size = manifest.files[plan.file].size / 1e6
        attentions = f"{plan.fused_attentions} of {plan.attentions}" if plan.attentions else "-"
        table.add_row(
            step.name, ranges, f"{size:.2f}", f"{plan.activation_bytes / 1e6:.1f}",
            f"{plan.network_layers} → {len(plan.layers)}", attentions, f"{plan.build_seconds:.2f}",
        )  # fmt: skip
    console.print(table)


def print_accuracy(console: Console, plans: PlanSet) -> None:
    """What the precision costs, against float32."""
    accuracy = plans.accuracy
    assert accuracy
    title = f"{plans.precision} against float32 on {accuracy.scenes} street scenes, without a GPU"
    table = Table(title=title, title_justify="left")
    for name in accuracy.differences:
        table.add_column(name, justify="right")
    table.add_column("labels equal", justify="right")
    table.add_column("same tokens kept")
    table.add_column("mIoU, fp32 → " + plans.precision)
    kept = "/".join(f"{share:.2%}" for share in accuracy.kept_agreement) or "-"
    miou = f"{accuracy.miou[0]:.2f} → {accuracy.miou[1]:.2f}" if accuracy.miou else "no labels"
    figures = [f"{difference:.1e}" for difference in accuracy.differences.values()]
    table.add_row(*figures, f"{accuracy.label_agreement:.2%}", kept, miou)
    console.print(table)
