"""A line chart as SVG, beside docs/benchmarks.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 320, 56, 110, 16, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
STEPS = 5


def lines(
    name: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
) -> None:
    """Write docs/<name>; both axes begin at 0."""
    points = [point for each in series.values() for point in each]
    right, top = max(x for x, _ in points), _round_up(max(y for _, y in points))

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
    for step in range(STEPS + 1):
        x, y = right * step / STEPS, top * step / STEPS
        parts.append(f'<polyline points="{place(0, y)} {place(right, y)}" stroke="#ddd"/>')
        at_x, at_y = place(x, 0).split(","), place(0, y).split(",")
        parts.append(_text(f"{LEFT - 6},{float(at_y[1]) + 4}", f"{y:g}", "end"))
        parts.append(_text(f"{at_x[0]},{HEIGHT - BOTTOM + 16}", f"{x:.0f}", "middle"))
    for (label, each), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join(place(x, y) for x, y in each)
        parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-width="1.5"/>')
        end = place(*each[-1]).split(",")
        parts.append(
            f'<text x="{float(end[0]) + 6}" y="{float(end[1]) + 4}" fill="{colour}">{label}</text>'
        )
    (DOCS / name).write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _text(place: str, text: str, anchor: str) -> str:
    x, y = place.split(",")
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _round_up(value: float) -> float:
    """Give a number above it that STEPS divides evenly."""
    unit = 10.0
    while unit * STEPS * 4 < value:
        unit *= 2
    return -(-value // (unit * STEPS / 5)) * unit * STEPS / 5
