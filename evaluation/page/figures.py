"""The figures of a report: the paper's Figure 4 and Figure 6, and accuracy class by class."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dovit.evaluation.evaluate import Outcome
from dovit.evaluation.page.gallery import Entry, Gallery
from dovit.evaluation.segmenter import join_thresholds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, RED, GREEN, ORANGE, GREY = "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#8a8a8a"


def sweep_figures(outcomes: Sequence[Outcome]) -> list[tuple[str, Figure]]:
    """Figure 4: accuracy, MACs and speed against ξ, and accuracy against MACs. None of fewer than two ξ."""
    import plotly.graph_objects as go

    swept = sorted((o for o in outcomes if o.setting.counts is None), key=lambda o: o.setting.thresholds)
    fixed = sorted((o for o in outcomes if o.setting.counts is not None), key=lambda o: o.macs_ratio)
    if len(swept) < 2:
        return []
    ticks = [join_thresholds(o.setting.thresholds) or "1" for o in swept]  # equal ones would be one place on the axis
    miou = [o.confusion.summary()["mIoU"] for o in swept]
    cost = [100 * o.macs_ratio[0] for o in swept]
    speed = [1 / o.latency.quantile(0.5) for o in swept]
    possible = [speed[-1] * swept[-1].macs_ratio[1] / o.macs_ratio[1] for o in swept]

    accuracy = go.Figure()
    accuracy.add_scatter(x=ticks, y=miou, name="mIoU", line_color=BLUE, hovertemplate="%{y:.2f} %")
    accuracy.add_scatter(
        x=ticks,
        y=cost,
        name="MACs (paper's count)",
        yaxis="y2",
        line_color=RED,
        line_dash="dash",
        hovertemplate="%{y:.1f} % of dense",
    )
    accuracy.update_layout(
        xaxis_title="ξ",
        xaxis_type="category",
        yaxis_title="mIoU, %",
        yaxis2={
            "title": "MACs, % of the dense model's",
            "overlaying": "y",
            "side": "right",
            "tickmode": "auto",
            "showgrid": False,
        },
    )
    speeds = go.Figure()
    speeds.add_scatter(x=ticks, y=speed, name="measured", line_color=GREEN, hovertemplate="%{y:.2f} images/s")
    speeds.add_scatter(
        x=ticks,
        y=possible,
        name="if time were proportional to MACs",
        line_color=GREY,
        line_dash="dot",
        hovertemplate="%{y:.2f} images/s",
    )
    speeds.update_layout(xaxis_title="ξ", xaxis_type="category", yaxis_title="images/s (median latency)")
    against = go.Figure()
    for name, group, colour in (("token pass", swept, BLUE), ("fixed ratio", fixed, ORANGE)):
        against.add_scatter(
            x=[100 * o.macs_ratio[0] for o in group],
            y=[o.confusion.summary()["mIoU"] for o in group],
            text=[html.escape(o.setting.name) for o in group],
            name=name,
            line_color=colour,
            visible=bool(group),
            mode="lines+markers",
            hovertemplate="%{text}: mIoU %{y:.2f} % at %{x:.1f} % of the dense MACs",
        )
    against.update_layout(xaxis_title="MACs, % of the dense model's", yaxis_title="mIoU, %", hovermode="closest")
    return [
        ("Figure 4a: accuracy and computation", _laid_out(accuracy)),
        ("Figure 4b: speed", _laid_out(speeds)),
        ("Accuracy against computation", _laid_out(against)),
    ]


def block_figure(gallery: Gallery, dense: tuple[int, int], tokens: int) -> Figure:
    """Figure 6: tokens and GMACs (the paper's count) of each block in a window: on average, of the images with the fewest
    and the most tokens, and of the dense model (bars and lines)."""
    import plotly.graph_objects as go

    blocks = len(gallery.mean_tokens)
    names = [f"block {number}" for number in range(1, blocks + 1)] + ["decoder"]
    figure = go.Figure()
    groups: list[tuple[str, Sequence[float], Sequence[float], str]] = [
        ("mean", gallery.mean_tokens, [paper for paper, _ in gallery.mean_macs], BLUE)
    ]
    for name, entries, colour in (("fewest tokens", gallery.fewest, GREEN), ("most tokens", gallery.most, RED)):
        groups += [(name, *_by_window(entry, tokens), colour) for entry in entries[:1]]
    for name, kept, macs, colour in groups:
        figure.add_bar(
            x=names,
            y=[value / 1e9 for value in macs],
            name=f"GMACs, {name}",
            marker_color=colour,
            opacity=0.6,
            hovertemplate="%{y:.4g} GMACs",
            legendgroup=name,
        )
        figure.add_scatter(
            x=names[:blocks],
            y=kept,
            name=f"tokens, {name}",
            yaxis="y2",
            line_color=colour,
            mode="lines+markers",
            hovertemplate="%{y:.0f} tokens",
            legendgroup=name,
        )
    figure.add_scatter(
        x=names[:blocks],
        y=[tokens] * blocks,
        name="tokens, dense",
        yaxis="y2",
        line_color=GREY,
        line_dash="dot",
        hovertemplate="%{y:.0f} tokens",
    )
    figure.update_layout(
        barmode="group",
        yaxis_title=f"GMACs (dense model: {dense[0] / 1e9:.4g} in all)",
        yaxis2={
            "title": "tokens",
            "overlaying": "y",
            "side": "right",
            "tickmode": "auto",
            "rangemode": "tozero",
            "showgrid": False,
        },
    )
    return _laid_out(figure)


def class_figure(outcomes: Sequence[Outcome], names: Sequence[str]) -> Figure:
    """IoU of every class at every setting, as a map of colours."""
    import plotly.graph_objects as go

    values = [[None if math.isnan(v) else 100 * v for v in o.confusion.iou.tolist()] for o in outcomes]
    figure = go.Figure(
        go.Heatmap(
            # names may be equal and long: rows are numbers, with names as their ticks
            z=[list(row) for row in zip(*values, strict=True)],
            x=[f"{number}: {html.escape(o.setting.name)}" for number, o in enumerate(outcomes, start=1)],
            y=list(range(len(names))),
            text=[[html.escape(name)] * len(outcomes) for name in names],
            colorscale="Viridis",
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar={"title": "IoU, %"},
            hoverongaps=False,
            hovertemplate="%{text}, %{x}: IoU %{z:.2f} %<extra></extra>",
        )
    )
    ticks = [html.escape(name if len(name) <= 24 else f"{name[:23]}…") for name in names]
    figure = _laid_out(figure, height=160 + 20 * len(names))
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=ticks, autorange="reversed")
    figure.update_xaxes(type="category")
    return figure


def as_html(figure: Figure, name: str) -> str:
    """The figure as a part of a page that has Plotly's program already; `name` is unique in the page."""
    from plotly.io import to_html

    text: str = to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        default_height=f"{figure.layout.height}px",
        config={"responsive": True, "displayModeBar": False},
    )
    return text


def _by_window(entry: Entry, tokens: int) -> tuple[list[float], list[float]]:
    """Tokens and MACs (the paper's count) of each block, on average over the image's windows."""
    windows = entry.dense_tokens / tokens
    return [count / windows for count in entry.tokens], [paper / windows for paper, _ in entry.macs]


def _laid_out(figure: Figure, height: int = 380) -> Figure:
    grid: dict[str, Any] = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.4)"}
    figure.update_layout(
        template="none",
        height=height,
        margin={"t": 30, "r": 70, "b": 60, "l": 70},
        hovermode="x unified",
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": "#111111"}},
        # readable on a light and a dark page alike
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font_color=GREY,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(**grid, automargin=True)
    figure.update_yaxes(**grid, automargin=True)
    return figure
