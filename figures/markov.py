"""The exact engine: what Algorithm 1 does to a small Markov source for every threshold and temperature."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from figures.style import BLACK, figure

NEEDS = ("tokens",)
CAPTION = (
    "Exact divergence after 30 edits of infinitely long data, over the information that neighbours carry about "
    "each other (1: as bad as losing all dependence), by threshold p and temperature: prior refitted in each "
    "generation (left) or fixed (middle); the line marks 0.1. Right: an already collapsed source edited with its "
    "own model: lowest divergence within eight generations in units of its start, and the generation that reaches "
    "it."
)


def _heat(ax, x, y, values, norm, cmap):
    table = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    mesh = ax.pcolormesh(np.arange(len(x) + 1), np.arange(len(y) + 1), table, norm=norm, cmap=cmap, rasterized=True)
    return mesh, table


def draw(results: dict[str, dict]) -> Figure:
    """Draws the figure from the result file of the step `tokens`."""
    data, config = results["tokens"]["data"], results["tokens"]["config"]
    fig = figure("double", 2.7)
    axes = fig.subplots(1, 3)
    thresholds, temperatures = config["map_thresholds"], config["map_temperatures"]
    norm = LogNorm(1e-3, 3)
    mesh = None
    for ax, key, title in ((axes[0], "map_own", "prior refitted"), (axes[1], "map_fixed", "prior fixed")):
        floor = [[None if v is None else max(v, 1e-3) for v in row] for row in data[key]["loss"]]
        mesh, table = _heat(ax, thresholds, temperatures, floor, norm, "cividis_r")
        ax.contour(
            np.arange(len(thresholds)) + 0.5, np.arange(len(temperatures)) + 0.5, table,
            levels=[config["collapse_level"]], colors=[BLACK], linewidths=1.2,
        )  # fmt: skip
        ticks = [i for i, p in enumerate(thresholds) if p in (0.1, 0.3, 0.5, 0.7, 0.9)]
        ax.set_xticks(np.array(ticks) + 0.5, [f"{thresholds[i]:g}" for i in ticks])
        ax.set_yticks(np.arange(len(temperatures)) + 0.5, [f"{t:g}" for t in temperatures])
        ax.set(xlabel="threshold p", ylabel="temperature", title=title)
        ax.grid(False)
    assert mesh is not None
    fig.colorbar(mesh, ax=axes[:2], label="KL / memory of the source", shrink=0.9)

    ax = axes[2]
    ps, ts = config["repair_thresholds"][::-1], config["repair_temperatures"]
    best = {(row["p"], row["temperature"]): row for row in data["repair"]}
    table = [[best[p, t]["best_kl"] for p in ps] for t in ts]
    ax.pcolormesh(
        np.arange(len(ps) + 1), np.arange(len(ts) + 1), np.array(table), cmap="cividis_r", vmin=0.6, vmax=1.05
    )
    for i, t in enumerate(ts):
        for j, p in enumerate(ps):
            row = best[p, t]
            dark = row["best_kl"] > 0.85
            ax.text(
                j + 0.5, i + 0.5, f"{row['best_kl']:.2f}\n@{row['best_generation']}", ha="center", va="center",
                fontsize=5.5, color="white" if dark else BLACK,
            )  # fmt: skip
    ax.set_xticks(np.arange(len(ps)) + 0.5, [f"{p:g}" for p in ps])
    ax.set_yticks(np.arange(len(ts)) + 0.5, [f"{t:g}" for t in ts])
    ax.set(xlabel="threshold p", ylabel="temperature", title="repair: KL / start")
    ax.grid(False)
    return fig
