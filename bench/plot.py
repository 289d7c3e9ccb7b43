"""Draws a line chart as SVG, next to docs/benchmarks.md."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 320, 56, 170, 16, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
STEPS = 5
APART = 14
"""Minimum distance between two labels."""


def lines(
    name: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
) -> None:
    """Write docs/<name>; both axes begin at 0."""
    points = [point for each in series.values() for point in each]
    right, top = (max(each) for each in zip(*points, strict=True))

    def place(x: float, y: float) -> str:
        left = LEFT + x / right * (WIDTH - LEFT - RIGHT)
        return f"{left:.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font: 12px sans-serif } polyline { fill: none }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(f"{(LEFT + WIDTH - RIGHT) / 2},{HEIGHT - 8}", across, "middle"),
        f'<g transform="translate(14,{HEIGHT / 2}) rotate(-90)">{_text("0,0", up, "middle")}</g>',
    ]
    for y in _ticks(top):
        at = place(0, y)
        parts.append(f'<polyline points="{at} {place(right, y)}" stroke="#ddd"/>')
        parts.append(_text(f"{LEFT - 6},{float(at.split(',')[1]) + 4:.1f}", f"{y:g}", "end"))
    for x in _ticks(right):
        left = place(x, 0).split(",")[0]
        parts.append(_text(f"{left},{HEIGHT - BOTTOM + 16}", f"{x:g}", "middle"))
    lowest = 0.0
    ends = {label: place(*each[-1]).split(",") for label, each in series.items()}
    colours = dict(zip(series, COLOURS, strict=False))
    for label in sorted(series, key=lambda each: float(ends[each][1])):
        path, colour = " ".join(place(x, y) for x, y in series[label]), colours[label]
        parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-width="1.5"/>')
        x, lowest = float(ends[label][0]) + 6, max(float(ends[label][1]) + 4, lowest + APART)
        parts.append(f'<text x="{x:.1f}" y="{lowest:.1f}" fill="{colour}">{label}</text>')
    (DOCS / name).write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _text(place: str, text: str, anchor: str) -> str:
    x, y = place.split(",")
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _ticks(end: float) -> list[float]:
    """Return round numbers from 0 up, in at most STEPS steps."""
    power = 10.0 ** math.floor(math.log10(end / STEPS))
    unit = power * next(each for each in (1, 2, 5, 10) if STEPS * power * each >= end)
    return [unit * each for each in range(math.floor(end / unit) + 1)]
