"""Models trained on edited text: the dose-response."""

from typing import Any

from matplotlib.figure import Figure

from figures.lm_arms import bars, dots, last_arms, last_cells, live_marks
from figures.style import BLACK, COLOURS, GREY, PURPLE, figure

NEEDS: tuple[str, ...] = ("lm_experiments",)
CAPTION = (
    "Training on edited human text (prior SmolLM2-135M-Instruct, 8 candidates), small decoders, 3 seeds: change of "
    "held-out loss (nats a token, mean over 13 human domains) against the model trained on the source, by the share "
    "of tokens that really changed; bars: 95 % intervals over seeds; dots: seeds; open circle: made in this run, the "
    "rest committed. Confident: the most confident tokens redrawn at temperature 1 until the rate is met; random: as "
    "many changes at random positions. Named settings stand where their edits put them; grey: below .1 %, where an "
    "edited corpus is the same corpus for a test of this size."
)
LEAST = 0.1  # percent
SETTINGS = {"paper": ("s", BLACK), "released": ("D", PURPLE)}


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the change of loss against the effective edit rate, of all human text and of the trained domains."""
    result = results["lm_experiments"]["data"]
    data, live = result["committed"]["edited"]["data"], result["live"].get("edited")
    rate = {row["arm"]: 100 * row["effective_rate"] for row in data["tables"]["edits"]}
    chart = figure("double", 2.9)
    for ax, domain, title in zip(
        chart.subplots(1, 2), ("human", "trained"), ("(a) all 13 domains", "(b) the trained domains"), strict=True
    ):
        arms = [row for row in last_arms(data, domain) if row["arm"] in rate]
        cells = [row for row in last_cells(data, domain) if row["arm"] in rate]
        for kind in ("confident", "random"):
            colour = COLOURS["edit" if kind == "confident" else "random"]
            mine = sorted((row for row in arms if row["selection"] == kind), key=lambda row: rate[row["arm"]])
            bars(ax, [rate[row["arm"]] for row in mine], mine, color=colour, marker="o", label=f"{kind} positions")
            dots(
                ax,
                lambda row: rate[row["arm"]],
                [row for row in cells if row["selection"] == kind],
                lambda _, colour=colour: colour,
            )
        for name, (marker, colour) in SETTINGS.items():
            mine = [row for row in arms if row["arm"] == name]
            bars(ax, [rate[name]], mine, color=colour, marker=marker, linestyle="none", label=f"settings: {name}")
        live_marks(ax, lambda row: rate[row["arm"]], [row for row in last_cells(live, domain) if row["arm"] in rate])
        ax.set_xscale("log")
        ax.axvspan(min(rate.values()) / 2, LEAST, color="0.93", zorder=0)
        ax.set_xlim(min(rate.values()) / 2, 2 * max(rate.values()))
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_xlabel("tokens changed (%)")
        ax.set_ylabel("change of loss (nats)")
        ax.set_title(title)
    chart.axes[0].legend(loc="upper left")
    return chart
