"""Tables about TensorRT plans and their accuracy."""

from __future__ import annotations

from rich.console import Console

from dovit.runtime.bundle.manifest import Manifest
from dovit.runtime.bundle.plans import PlanSet
from dovit.runtime.cli.output import escaped, new_table, print_table


def print_plans(console: Console, manifest: Manifest, plans: PlanSet) -> None:
    """Each plan with its profiles, size, layers and build time; the operations between them by name."""
    targets = ", ".join(plans.compute_capabilities) or "portable"
    title = f"{plans.flavour} {plans.version}, {plans.precision}, batch {plans.batch}, compute capability {targets}"
    table = new_table("part", "tokens kept", "MB", "scratch\nMB", "layers", "fused\nattn", "built in\ns", left=(0, 1))
    for step in plans.steps:
        plan = step.plan
        if plan is None:
            table.add_row(f"[dim]{escaped(step.name)}[/dim]", "[dim](runtime)[/dim]")
            continue
        ranges = ", ".join(f"{p.least}…{p.most}" for p in plan.profiles) or "fixed"
        size = manifest.files[plan.file].size / 1e6
        attentions = f"{plan.fused_attentions} of {plan.attentions}" if plan.attentions else "-"
        table.add_row(
            escaped(step.name),
            ranges,
            f"{size:.2f}",
            f"{plan.activation_bytes / 1e6:.1f}",
            f"{plan.network_layers} → {len(plan.layers)}",
            attentions,
            f"{plan.build_seconds:.2f}",
        )
    print_table(console, title, table)


def print_accuracy(console: Console, plans: PlanSet) -> None:
    """The accuracy of the plans' precision compared with float32."""
    accuracy = plans.accuracy
    assert accuracy
    table = new_table("", plans.precision, text=(0, 1))
    for name in (step.name for step in plans.steps if step.kind == "plan"):
        difference = accuracy.differences.get(name)
        table.add_row(escaped(name), "not measured" if difference is None else f"{difference:.1e}")
    if plans.float32_nodes:
        shown = ", ".join(plans.float32_nodes[:4]) + (", …" if len(plans.float32_nodes) > 4 else "")
        table.add_row(f"{len(plans.float32_nodes)} nodes stay float32", escaped(shown))
    table.add_section()
    table.add_row("labels equal", f"{accuracy.label_agreement:.2%}")
    for number, share in enumerate(accuracy.kept_agreement, start=1):
        table.add_row(f"same tokens kept, decision {number}", f"{share:.2%}")
    table.add_row("mIoU, fp32", f"{accuracy.miou[0]:.2f}" if accuracy.miou else "no labels")
    table.add_row(f"mIoU, {plans.precision}", f"{accuracy.miou[1]:.2f}" if accuracy.miou else "no labels")
    title = f"{plans.precision}: largest relative difference from float32 ({accuracy.scenes} street scenes, no GPU)"
    print_table(console, title, table)
