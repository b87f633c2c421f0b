"""What a measurement says: tables, a verdict on its target, and a plot; all of it as docs/benchmarks.md shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS, THEIRS = "#2563eb", "#9ca3af"
COLOURS = [OURS, THEIRS, "#f59e0b", "#10b981"]

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of a plot, or with `dots` single points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a plot."""

    label: str
    length: float


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of lines, or of bars; `limit` is drawn across it, as the target."""

    name: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    limit: float | None = None
    log_x: bool = False

    def write(self, directory: Path) -> None:
        """Writes `name`.svg, the same bytes for the same figures."""
        import matplotlib  # which a process that only measures does without

        matplotlib.use("svg")
        from matplotlib import pyplot

        with pyplot.rc_context({"svg.hashsalt": self.name, "font.size": 9, "svg.fonttype": "none"}):
            figure, axes = pyplot.subplots(
                figsize=(6.4, 2.8 if self.lines else 0.9 + 0.36 * len(self.bars)), layout="constrained"
            )
            self._draw(axes)
            axes.set_xlabel(self.x_label)
            axes.set_ylabel(self.y_label)
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(directory / f"{self.name}.svg", metadata={"Date": None, "Creator": None})
            pyplot.close(figure)

    def _draw(self, axes: Any) -> None:
        for line, colour in zip(self.lines, COLOURS, strict=False):
            axes.plot(line.x, line.y, "o" if line.dots else "-", color=colour, label=line.label, markersize=4)
        if self.bars:
            lengths = [bar.length for bar in self.bars]
            shown = axes.barh([bar.label for bar in self.bars], lengths, color=OURS, height=0.6)
            axes.bar_label(shown, fmt=lambda length: f"{length:,.3g}" if length < 1000 else f"{length:,.0f}", padding=3)
            axes.invert_yaxis()
        if self.limit is not None:
            (axes.axvline if self.bars else axes.axhline)(self.limit, color="#dc2626", linestyle=":", label="target")
        if self.log_x:
            axes.set_xscale("log")
        if len(self.lines) > 1:
            axes.legend(frameon=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A further table of a section."""

    caption: str
    head: Row
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One target's outcome; `met` is None where there is nothing to judge."""

    title: str
    target: str
    verdict: str
    met: bool | None
    head: Row
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    plot: Plot | None = None
    more: Sequence[Table] = ()

    @property
    def outcome(self) -> str:
        """Whether the target was met, in a word."""
        return {True: "met", False: "**missed**", None: "shown"}[self.met]

    def markdown(self) -> str:
        """The section as it stands in docs/benchmarks.md."""
        parts = [f"## {self.title}", f"Target: {self.target}.", f"Measured: {self.verdict} ({self.outcome})."]
        parts.append(table(self.head, self.rows))
        for one in self.more:
            parts += [f"{one.caption}:", table(one.head, one.rows)]
        parts += self.notes
        if self.plot is not None:
            parts.append(f"![{self.title}](benchmarks/{self.plot.name}.svg)")
        return "\n\n".join(parts)


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table in Markdown, numbers to the right."""
    rights = [all(_is_number(row[column]) for row in rows) for column in range(len(head))]
    rule = "|".join("---:" if right else "---" for right in rights)
    return "\n".join([_line(head), f"|{rule}|", *map(_line, rows)])


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or (text[:1] in "-$?" and len(text) < 16)
