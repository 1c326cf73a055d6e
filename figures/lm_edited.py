"""Models trained on edited text: the dose-response."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.lm_arms import bars, dots, last_arms, last_cells, live_marks
from figures.style import BLACK, COLOURS, GREY, PURPLE, figure

NEEDS: tuple[str, ...] = ("lm_experiments",)
CAPTION = (
    "Training on edited human text (prior SmolLM2-135M-Instruct, 8 candidates), small decoders, 3 seeds: change of "
    "held-out loss (nats a token) against the model trained on the source, by the share of tokens that really changed; "
    "(a) mean over 13 human domains, (b) over the 4 that the source has. Bars: 95 % intervals over seeds; dots: "
    "seeds; open circle: made in this run, the rest committed. Grey band: changes that cannot be told from zero (the "
    "half-width of the interval or twice the standard error over works, whichever is largest of the confident and the "
    "random edits of a rate). Confident: the most confident tokens redrawn at temperature 1 until the rate is met; "
    "random: as many changes at random positions; both drawn 8 % beside their rate. Named "
    "settings stand where their edits put them. Hatched: below .1 %, untestable: an edited corpus is the same corpus "
    "for a test of this size."
)
LEAST = 0.1  # percent
BESIDE = {"confident": 1 / 1.08, "random": 1.08}  # so that bars can be told apart
SETTINGS = {"paper": ("s", BLACK), "released": ("D", PURPLE)}


def draw(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw the change of loss against the effective edit rate, of all human text and of the trained domains."""
    result = results["lm_experiments"]["data"]
    data, live = result["committed"]["edited"]["data"], result["live"].get("edited")
    chart = figure("double", 2.9)
    for ax, domain, title in zip(
        chart.subplots(1, 2), ("human", "trained"), ("(a) all 13 domains", "(b) the trained domains"), strict=True
    ):
        doses(ax, data, live, domain)
        ax.set_title(title)
    chart.axes[0].legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")
    return chart


def doses(ax: Axes, data: dict[str, Any], live: dict[str, Any] | None, domain: str) -> None:
    """Draw the change of loss in a domain, or a mean over some, against the effective edit rate."""
    rate = {row["arm"]: 100 * row["effective_rate"] for row in data["tables"]["edits"]}
    left = min(rate.values()) / 2
    _arms(ax, data, live, domain, rate)
    ax.set_xscale("log")
    ax.axvspan(left, LEAST, facecolor="none", edgecolor="0.85", hatch="///", linewidth=0, zorder=0)
    below = ax.get_xaxis_transform()
    ax.text(LEAST * 0.8, 0.02, "untestable", transform=below, ha="right", fontsize=6.5, color="0.3")
    ax.set_xlim(left, 2 * max(rate.values()))
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xlabel("tokens changed (%)")
    ax.set_ylabel("change of loss (nats)")


def _arms(ax: Axes, data: dict[str, Any], live: dict[str, Any] | None, domain: str, rate: dict[str, float]) -> None:
    def place(row: dict[str, Any]) -> float:
        return rate[row["arm"]] * BESIDE.get(row["selection"], 1.0)

    arms, cells, made = (
        [row for row in rows if row["arm"] in rate]
        for rows in (last_arms(data, domain), last_cells(data, domain), last_cells(live, domain))
    )
    for kind in BESIDE:
        colour = COLOURS["edit" if kind == "confident" else "random"]
        mine = sorted((row for row in arms if row["selection"] == kind), key=place)
        bars(ax, [place(row) for row in mine], mine, color=colour, marker="o", label=f"{kind} positions")
        dots(ax, place, [row for row in cells if row["selection"] == kind], lambda _, colour=colour: colour)
    for name, (marker, colour) in SETTINGS.items():
        mine = [row for row in arms if row["arm"] == name]
        label = f"settings: {name}"
        bars(ax, [place(row) for row in mine], mine, color=colour, marker=marker, linestyle="none", label=label)
    live_marks(ax, place, made)
    _undecided(ax, [row for row in arms if row["selection"] in BESIDE], rate)


def _undecided(ax: Axes, arms: list[dict[str, Any]], rate: dict[str, float]) -> None:
    """Draw the band around zero in which a change is not told from it; arms of one seed have no interval."""
    widest: dict[float, tuple[float, float]] = {}
    for row in arms:
        if row["change_half_width"] is not None:
            limit = max(row["change_half_width"], 2 * (row["change_works_se"] or 0.0))
            place, other = widest.get(row["rate"], (rate[row["arm"]], 0.0))
            widest[row["rate"]] = place, max(limit, other)
    if widest:
        x, y = zip(*sorted(widest.values()), strict=True)
        ax.fill_between(x, [-one for one in y], y, color="0.88", linewidth=0, zorder=0.5, label="not told from zero")
