"""Draws the figures of a bench over the number of ports, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

_FLOOR = "floor_"


def draw(file: Path, title: str, results: Sequence[Mapping[str, object]]) -> None:
    """Seconds over ports, a line for agent_flows, the floor and each peer; both axes logarithmic.

    ``results`` are as the runner gives them, one for each number of ports.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    sizes = [result["ports"] for result in results]
    for name in results[0]:
        if name == "seconds" or name.removesuffix("_seconds") in _others(results[0]):
            label = "agent_flows" if name == "seconds" else name.removesuffix("_seconds")
            style = "--" if name.startswith(_FLOOR) else "-"
            axes.plot(sizes, [result[name] for result in results], style, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="ports", ylabel="seconds", title=title)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, format="svg", metadata={"Date": None})


def _others(result: Mapping[str, object]) -> set[str]:
    """The floor, and the peers: they have a ratio."""
    return {"floor", *(name.removesuffix("_ratio") for name in result if name.endswith("_ratio"))}
