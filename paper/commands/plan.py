"""`toedit plan`: what an experiment costs and can see, before any training."""

import functools
import json
import math
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from paper.errors import InputError

if TYPE_CHECKING:
    from lm.experiments.plan import Plan as Planned
    from lm.experiments.presets import Preset
    from lm.experiments.rates import Rate
    from lm.experiments.texts import Prepared

SAMPLE = 8192  # with no change in so many, a rate of .1 % is ruled out
LONGEST = 2 * 86400.0  # seconds of an experiment whose text is prepared for the sample
LARGEST_SEED = 2_000_000  # a generation's draws are keyed by 1000 seed + generation, below 2^31


@dataclass(frozen=True)
class Plan:
    """Tell what an experiment costs and can see, before any training.

    Models, tokens, FLOPs, time here, GPU-hours elsewhere, disk and memory; the smallest effect that its seeds and its
    test text would show; and the effective edit rate of its settings, from a sample that the prior scores.
    Example: `toedit plan edited --preset laptop`.
    """

    experiment: Annotated[str, tyro.conf.Positional]
    """mixture, edited or iterate; `toedit experiment --list` tells about them."""
    preset: str = "laptop"
    """laptop, gpu or paper."""
    sample: int = SAMPLE
    """Tokens of the text that the prior scores for the edit rates; 0 scores none."""
    json: Path | None = None
    """Write the plan as JSON."""

    def run(self) -> int:
        """Print the plan; return the exit code.

        Raises:
            InputError: an unknown experiment or preset, a source that is missing, a file that cannot be written.
        """
        from lm.experiments.designs import find_experiment
        from lm.experiments.presets import find_preset
        from paper.results import check_writable

        started = time.perf_counter()
        check_sample(self.sample)
        find_experiment(self.experiment)
        preset = find_preset(self.preset)
        if self.json is not None:
            check_writable(self.json)
        if preset.runs_here:
            check_sources(preset)
        folder = default_folder(self.preset)
        planned = plans(self.experiment, self.preset, preset, folder)
        data = tell(self.experiment, self.preset, preset, planned, folder, self.sample)
        if self.json is not None:
            from paper.results import record, write_text

            config = {key: value for key, value in asdict(self).items() if key != "json"}
            result = record("plan", config, data, time.perf_counter() - started)
            write_text(self.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
        return 0


def default_folder(preset: str) -> Path:
    """Return where `toedit experiment` keeps the experiments of a preset."""
    return Path("results") / "experiments" / preset


def variant_folder(folder: Path, variant: str) -> Path:
    """Return where the experiments of a variant are; "" has the folder itself."""
    return folder / variant if variant else folder


def check_sample(tokens: int) -> None:
    """Refuse a negative sample; raises InputError."""
    if tokens < 0:
        raise InputError(f"--sample is {tokens}; give a number of tokens, or 0 to score none")


def with_seeds(preset: "Preset", seeds: Sequence[int] | None) -> "Preset":
    """Return the preset with other seeds; raises InputError for none, a repeated one or one out of range."""
    if seeds is None:
        return preset
    if not seeds:
        raise InputError("the list of seeds is empty; give some, such as --seeds 0 1 2")
    if len(set(seeds)) != len(seeds):
        raise InputError("a seed is repeated, and the same model twice is no second replication; give different seeds")
    if not 0 <= min(seeds) <= max(seeds) <= LARGEST_SEED:
        raise InputError(f"a seed is not in 0 to {LARGEST_SEED}; choose others")
    return replace(preset, seeds=tuple(seeds))


def with_sizes(preset: "Preset", name: str, sizes: tuple[str, ...] | None) -> "Preset":
    """Return a preset that makes an experiment at some of its sizes only.

    Args:
        preset: of all sizes.
        name: of the experiment.
        sizes: names of variants; None for all.

    Raises:
        InputError: a size that it does not have.
    """
    if sizes is None:
        return preset
    found = preset.variants.get(name, {})
    unknown = [size for size in sizes if size not in found]
    if unknown or not sizes:
        choice = f"choose one of {', '.join(found)}" if found else "it has one size; leave --sizes out"
        raise InputError(f"the preset has no size {', '.join(unknown) or 'without a name'} of {name}; {choice}")
    return replace(preset, variants={**preset.variants, name: {size: found[size] for size in found if size in sizes}})


def check_sources(preset: "Preset") -> None:
    """Refuse sources of a preset that do not exist; raises InputError."""
    from lm.data.sources import find

    texts = preset.setup.texts
    for name in (*texts.trained, *texts.held_out, texts.synthetic):
        find(name)


def processes() -> int:
    """Return how many processes make the models: one a core, or one for an accelerator."""
    import jax

    return os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1


class Spread(NamedTuple):
    """How far paired differences vary, in nats a token on human text; nothing where no result tells.

    Attributes:
        sd: standard deviation over seeds, from the variance pooled over arms: a median would hide those that vary most.
        works: the same of the standard error over the test text's works.
        source: the preset, and its size if it has several, that they are from.
        largest: standard deviation of the arm that varies most.
        arm: its name.
    """

    sd: float | None = None
    works: float | None = None
    source: str = ""
    largest: float | None = None
    arm: str = ""


@functools.cache
def spread(name: str, preset: str) -> Spread:
    """Return how far paired differences of an experiment vary, from committed results."""
    from scipy.stats import t as student

    from lm.experiments.tables import LEVEL
    from paper.results import ROOT

    folder = ROOT / "paper" / "results" / "experiments"
    sizes = sorted(path.parent for path in (folder / preset).glob(f"*/{name}.json"))
    for found in (folder / preset, *sizes, folder / "laptop"):
        path = found / f"{name}.json"
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))["data"]["tables"]["arms"]
            last = max(row["step"] for row in rows)
            # The human-only arm differs from itself by nothing.
            rows = [row for row in rows if row["step"] == last and row["domain"] == "human" and row["change"]]
            sds = {
                row["arm"]: row["change_half_width"]
                * math.sqrt(row["seeds"])
                / student.ppf((1 + LEVEL) / 2, row["seeds"] - 1)
                for row in rows
                if row["change_half_width"]
            }
            works = [row["change_works_se"] for row in rows if row["change_works_se"]]
            if sds:
                arm = max(sds, key=sds.__getitem__)
                return Spread(
                    _pooled([*sds.values()]),
                    _pooled(works) if works else None,
                    found.relative_to(folder).as_posix(),
                    float(sds[arm]),
                    arm,
                )
    return Spread()


def _pooled(deviations: list[float]) -> float:
    return math.sqrt(statistics.fmean(one * one for one in deviations))


def plans(name: str, preset_name: str, preset: "Preset", folder: Path | None) -> "dict[str, Planned]":
    """Return the plan of an experiment at each size that it is made at, by the variant's name.

    Args:
        name: of the experiment.
        preset_name: of its preset.
        preset: with the seeds that are meant.
        folder: of the preset's experiments, where finished models may be; None looks for none.
    """
    from lm.experiments.plan import plan

    found = spread(name, preset_name)
    return {
        variant: plan(name, size, found.sd, found.works, folder and variant_folder(folder, variant), variant)
        for variant, size in preset.sizes(name).items()
    }


def tell(
    name: str,
    preset_name: str,
    preset: "Preset",
    planned: "dict[str, Planned]",
    folder: Path,
    sample: int,
    count: int | None = None,
) -> dict[str, Any]:
    """Print the plans of an experiment and return them as JSON has them.

    Args:
        name: of the experiment.
        preset_name: of its preset.
        preset: as for `plans`.
        planned: what `plans` returned.
        folder: as for `plans`.
        sample: tokens that the prior scores for the edit rates; none are where the preset is for a larger machine.
        count: processes that make the models; by default those of `processes`.

    Raises:
        InputError: a source that cannot be fetched, a prior that cannot be loaded.
    """
    from rich.console import Console

    from lm.experiments.designs import find_experiment

    console, experiment = Console(highlight=False), find_experiment(name)
    console.print(f"[bold]{name}[/bold] ({preset_name}, for {preset.machine}): {experiment.question}")
    console.print(f"Beside the paper: {experiment.paper}.")
    vary = spread(name, preset_name)
    count = processes() if count is None else count
    peak: dict[Any, float] = {}
    variants = {}
    for variant, size in preset.sizes(name).items():
        one, seconds = planned[variant], None
        if preset.runs_here:
            peak |= measured({work.compute for work in one.left} - peak.keys())
            seconds = one.seconds(peak, count)
        # What takes days here is meant for another machine, and so is its text.
        here = seconds is not None and seconds < LONGEST
        rates = _rates(name, size, variant_folder(folder, variant), sample if here else 0)
        show(console, one, seconds, rates, vary, size, count)
        if seconds is not None:
            found = ", ".join(f"{rate:.2g} ({compute})" for compute, rate in peak.items())
            console.print(f"A matmul's rate, measured now beside whatever else runs here: {found or 'none'} FLOP/s.")
        variants[variant] = {
            **asdict(one),
            "gpu_hours_left": one.gpu_hours,
            "seconds_left_here": seconds,
            "spread": {
                "over_seeds": vary.sd,
                "over_works": vary.works,
                "of_preset": vary.source or None,
                "largest_over_seeds": vary.largest,
                "of_arm": vary.arm or None,
            },
            "edit_rates": [asdict(rate) for rate in rates],
        }
    return {"preset": preset_name, "peak_flops": peak, "variants": variants}


def measured(computes: Iterable[Any]) -> dict[Any, float]:
    """Return the FLOP/s of a square matmul on this machine by type of its factors."""
    from lm.train.metrics import measure_peak

    return {compute: measure_peak(compute) for compute in computes}


def _rates(name: str, preset: "Preset", folder: Path, sample: int) -> "list[Rate]":
    from lm.experiments.designs import find_experiment
    from lm.experiments.rates import edit_rates
    from lm.experiments.texts import prepare

    cells = find_experiment(name).cells(preset)
    texts: Prepared | None = None
    if sample and any(cell.edit is not None for cell in cells):
        texts = prepare(preset.setup.texts)
    return edit_rates(cells, preset, folder, texts, sample)


def show(
    console: Any,
    planned: "Planned",
    seconds: float | None,
    rates: "list[Rate]",
    vary: Spread,
    preset: "Preset",
    count: int,
) -> None:
    """Print a plan.

    Args:
        console: of rich.
        planned: to print.
        seconds: that it takes here; None where it is not meant to run.
        rates: effective edit rates.
        vary: how far its paired differences vary.
        preset: of the experiment.
        count: processes that make the models.
    """
    from rich.table import Table

    from lm.experiments.plan import GPU_START_SECONDS, GPU_UTILISATION, KINDS, POWER, UTILISATION, detectable
    from paper.commands.edit import duration

    setup, counts = preset.setup, planned.counts
    title = f"Variant {planned.variant}: {planned.model}" if planned.variant else f"Model {planned.model}"
    seeds = f"{planned.seeds} seed{'s' if planned.seeds > 1 else ''}"
    console.print(
        f"\n{title}, {planned.parameters:,} parameters: {counts['models']} models ({planned.arms} arms, {seeds}; "
        f"{planned.shared} shared with other experiments), each "
        f"{setup.steps:,} updates of {setup.batch} x {setup.config().context:,} = {planned.tokens_a_model:,} tokens, "
        f"the same for all arms. {counts['samples']} sampled corpora, {counts['scored']} passes of a prior, "
        f"{counts['edits']} edited corpora. Finished: {planned.finished} of {sum(counts.values())}."
    )
    drawn = Table("work", *(f"tokens {kind}" for kind in KINDS), "all")
    tokens, flops = planned.tokens, planned.flops
    drawn.add_row("tokens", *(f"{tokens[kind]:.3g}" for kind in KINDS), f"{sum(tokens.values()):.3g}")
    drawn.add_row("FLOPs", *(f"{flops[kind]:.3g}" for kind in KINDS), f"{sum(flops.values()):.3g}")
    console.print(drawn)
    left = "What is left: " if planned.finished else ""
    if seconds is not None:
        console.print(
            f"{left}about {duration(seconds)} here with {count} process{'es' if count > 1 else ''}, at "
            f"{', '.join(f'{UTILISATION[kind]:.0%} ({kind})' for kind in KINDS)} of a matmul's measured rate."
        )
    console.print(
        f"{left}{planned.gpu_hours:,.3g} GPU-hours of an H100 or H200, at "
        f"{', '.join(f'{GPU_UTILISATION[kind]:.0%} ({kind})' for kind in KINDS)} of its bfloat16 peak and "
        f"{GPU_START_SECONDS:g} s a corpus or model; at most {size_of(planned.disk)} of disk; "
        f"{size_of(planned.memory)} of memory a process."
    )
    if planned.effect is None:
        console.print(f"Smallest effect that it would show: {planned.effect_reason}.")
    else:
        of = f", of all arms pooled, from the preset {vary.source}"
        console.print(
            f"Smallest effect that it would show, with a probability of {POWER:.0%}: {planned.effect:.2g} nats a token "
            f"({math.expm1(planned.effect):.1%} of perplexity); {planned.effect_reason}{of}."
        )
        most, _ = detectable(vary.largest, vary.works, len(preset.seeds))
        if most is not None:
            console.print(
                f"Of {vary.arm}, which varied most there (standard deviation {vary.largest:.2g}): {most:.2g} nats a "
                "token."
            )
    if rates:
        drawn = Table("arm", "effective edit rate", "standard error", "tokens scored", "from", "verdict")
        for rate in rates:
            drawn.add_row(
                rate.arm,
                _percent(rate),
                "" if rate.error is None else f"{rate.error:.3%}",
                f"{rate.tokens:,}" if rate.tokens else "",
                rate.reason,
                rate.verdict,
            )
        console.print(drawn)


def _percent(rate: "Rate") -> str:
    """Return a rate as text; where no token of a sample changed, the bound that has a probability of 95 %."""
    if rate.rate is None:
        return "?"
    return f"below {3 / rate.tokens:.3%}" if rate.tokens and not rate.rate else f"{rate.rate:.3%}"


def size_of(number: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e6:,.0f} MB"
