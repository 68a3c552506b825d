"""Plots: the report's pictures as PNG bytes.

In:   columns of numbers
Out:  PNG, under 100 KB, the same bytes for the same numbers: no date, no program name in it
Backgrounds are transparent and every colour is readable on white and on near-black.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes two seconds to import: only drawing pays for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#858994"
COLOURS = ("#4a86c8", "#d9822b", "#3f9a68", "#b0589b")
Line = tuple[Sequence[float], Sequence[float]]


def curves(lines: Mapping[str, Line], *, x: str, y: str, faint: Sequence[str] = ()) -> bytes:
    """Lines over one axis; those in `faint` are drawn thin, as measurements behind a trend."""
    figure, (axes,) = _figure(1)
    for colour, (name, (xs, ys)) in zip(COLOURS, lines.items(), strict=False):
        thin = name in faint
        axes.plot(xs, ys, color=colour, label=name, lw=0.9 if thin else 1.8, alpha=0.55 if thin else 1, marker=_dot(xs))
    axes.set(xlabel=x, ylabel=y)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return _png(figure)


def panels(lines: Mapping[str, Line], *, x: str) -> bytes:
    """One small diagram a line, side by side, each with its own scale."""
    figure, all_axes = _figure(len(lines))
    for axes, colour, (name, (xs, ys)) in zip(all_axes, COLOURS, lines.items(), strict=False):
        axes.plot(xs, ys, color=colour, lw=1.6, marker=_dot(xs))
        axes.set_title(name, fontsize=9, color=INK)
        axes.set_xlabel(x)
    return _png(figure)


def bars(counts: Mapping[str, int]) -> bytes:
    """Horizontal bars with their numbers, from top to bottom."""
    figure, (axes,) = _figure(1, height=0.6 + 0.42 * len(counts))
    names, values = list(counts), list(counts.values())
    axes.barh(names, values, color=[COLOURS[0] if value else INK for value in values], height=0.62)
    axes.bar_label(axes.containers[0], labels=[f" {value:,}" for value in values], color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([*values, 1]))
    axes.xaxis.set_visible(False)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return _png(figure)


def marked_bars(counts: Mapping[str, int], marks: Mapping[str, int], *, x: str) -> bytes:
    """Horizontal bars over a logarithmic axis, each with a stroke at its mark; a bar short of it has another colour."""
    figure, (axes,) = _figure(1, height=0.9 + 0.42 * len(counts))
    names, values = list(counts), list(counts.values())
    reached = [COLOURS[0] if counts[name] >= marks[name] else COLOURS[1] for name in names]
    axes.barh(names, values, color=reached, height=0.62)
    axes.bar_label(axes.containers[0], labels=[f" {value:,}" for value in values], color=INK, fontsize=9)
    places = range(len(names))
    axes.vlines([marks[name] for name in names], [n - 0.4 for n in places], [n + 0.4 for n in places], color=INK, lw=2)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(0, 4 * max([*values, *marks.values()]))
    axes.set_xlabel(x)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _png(figure)


def histogram(edges: Sequence[float], counts: Mapping[str, Sequence[int]], *, x: str, y: str) -> bytes:
    """Step outlines over shared bins."""
    figure, (axes,) = _figure(1)
    for colour, (name, values) in zip(COLOURS, counts.items(), strict=False):
        axes.stairs(values, edges, color=colour, label=name, fill=len(counts) == 1, lw=1.6)
    axes.set(xlabel=x, ylabel=y)
    if len(counts) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return _png(figure)


def _figure(count: int, height: float = 3.2) -> "tuple[Figure, Sequence[Axes]]":
    """Quiet axes. Figure, not pyplot: no global state, no window, safe in a worker thread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, height), dpi=110, layout="constrained")
    grid = figure.subplots(1, count, squeeze=False)[0]
    for axes in grid:
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, labelsize=8)
        axes.xaxis.label.set(color=INK, fontsize=9)
        axes.yaxis.label.set(color=INK, fontsize=9)
        axes.locator_params(axis="both", nbins=6)
    return figure, grid


def _dot(xs: Sequence[float]) -> str | None:
    """A line of few points shows them."""
    return "o" if len(xs) < 3 else None


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
