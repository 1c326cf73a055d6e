"""`toedit experiment`: the experiments on synthetic data and editing, by name."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from paper.commands.plan import (
    SAMPLE,
    check_sample,
    check_sources,
    default_folder,
    plans,
    processes,
    size_of,
    tell,
    variant_folder,
    with_seeds,
    with_sizes,
)
from paper.errors import InputError

if TYPE_CHECKING:
    from lm.experiments.presets import Preset

SHOWN = ("human", "trained", "held-out")  # averages over domains


@dataclass(frozen=True)
class Experiment:
    """Make an experiment: print its plan, train its models, write its tables.

    Example: `toedit experiment mixture --preset laptop`. Stopped or killed at any moment, the same command goes on and
    ends in the same numbers. Results: OUT/NAME.json, and each table as OUT/NAME.TABLE.csv.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """mixture, edited or iterate."""
    preset: str = "laptop"
    """laptop (two cores), gpu (one H200) or paper (a cluster: the plan and its commands, with --dry-run)."""
    out: Path | None = None
    """Folder of the preset's experiments, which share models; results/experiments/PRESET by default."""
    seeds: tuple[int, ...] | None = None
    """Replications, instead of the preset's."""
    sizes: tuple[str, ...] | None = None
    """Of a preset with models of several sizes, those to make, by the names of their folders; all by default."""
    processes: int | None = None
    """Models made at a time: by default one a core, or one on an accelerator, which several small ones can share."""
    sample: int = SAMPLE
    """Tokens of the text that the prior scores for the plan's edit rates; 0 scores none."""
    dry_run: bool = False
    """Print the plan and stop."""
    list_: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Tell what each experiment asks, costs and takes, and stop."""

    def run(self) -> int:
        """Print the plan, make the models, write and print the tables; return the exit code.

        Raises:
            InputError: an unknown experiment or preset, impossible seeds, a missing source, a folder of another
                configuration, too little disk or memory.
        """
        # An accelerator's memory is for the process that trains, not for this one.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from lm.experiments.designs import EXPERIMENTS, find_experiment
        from lm.experiments.plan import check_room
        from lm.experiments.presets import find_preset
        from paper.results import check_writable

        if self.list_:
            show_list()
            return 0
        if self.name is None:
            raise InputError(f"no experiment is named; choose one of {', '.join(EXPERIMENTS)}, or see --list")
        find_experiment(self.name)
        preset = with_sizes(with_seeds(find_preset(self.preset), self.seeds), self.name, self.sizes)
        check_sample(self.sample)
        count = processes() if self.processes is None else self.processes
        if count < 1:
            raise InputError(f"--processes is {count}; give a number from 1")
        if not preset.runs_here and not self.dry_run:
            raise InputError(
                f"the preset {self.preset} is for a cluster; add --dry-run for its plan and the commands to give there"
            )
        folder = self.out or default_folder(self.preset)
        if preset.runs_here:
            check_sources(preset)
        self._check_folders(preset, folder)
        planned = plans(self.name, self.preset, preset, folder)
        if not self.dry_run:
            check_writable(folder / f"{self.name}.json")
            check_room(planned.values(), folder, count, device_memory())
        plan = tell(self.name, self.preset, preset, planned, folder, self.sample, count)
        if self.dry_run:
            self._show_commands(preset)
            return 0
        print("Stopped or killed, the same command goes on where it was.", flush=True)
        for variant, size in preset.sizes(self.name).items():
            self._make(size, variant_folder(folder, variant), plan["variants"][variant], count)
        return 0

    def _check_folders(self, preset: "Preset", folder: Path) -> None:
        """Refuse results of another configuration; raises InputError."""
        from lm.experiments.workers import CONFIG, open_folder

        for variant, size in preset.sizes(self.name or "").items():
            where = variant_folder(folder, variant)
            if (where / CONFIG).exists():
                open_folder(where, size.setup)

    def _show_commands(self, preset: "Preset") -> None:
        from lm.experiments.designs import find_experiment
        from paper.commands.cluster import commands

        if preset.runs_here or self.name is None:
            return
        for variant, size in preset.sizes(self.name).items():
            print("\nCommands:")
            if variant:
                print(f"mkdir -p {variant} && cd {variant}")
            print("\n".join(commands(find_experiment(self.name).cells(size), size)))

    def _make(self, preset: "Preset", folder: Path, plan: dict[str, Any], count: int) -> None:
        """Make the models of one size, so many at a time, and write their tables."""
        from lm.experiments.designs import find_experiment
        from lm.experiments.tables import tables
        from lm.experiments.workers import make
        from paper.results import record, write_csv, write_text

        assert self.name is not None
        started = time.perf_counter()
        cells = find_experiment(self.name).cells(preset)
        with progress(self.name) as bar:
            stage = make([cell.run for cell in cells], folder, preset.setup, bar, count)
        data = tables(stage, cells)
        config = {
            "experiment": self.name,
            "preset": self.preset,
            "seeds": preset.seeds,
            "setup": preset.setup.to_json(),
            "plan": {key: plan[key] for key in ("counts", "flops", "effect", "effect_reason", "edit_rates")},
        }
        result = record(self.name, config, data, time.perf_counter() - started)
        for name, rows in result["data"]["tables"].items():
            write_csv(folder / f"{self.name}.{name}.csv", rows)
        write_text(folder / f"{self.name}.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
        show_arms(result["data"]["tables"]["arms"])
        print(f"{folder / self.name}.json and .csv have all numbers.")


def device_memory() -> float | None:
    """Return bytes of the accelerator's memory; None where the cores compute."""
    import jax

    if jax.default_backend() == "cpu":
        return None
    return float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0))


@contextmanager
def progress(name: str) -> "Iterator[Any]":
    """Show a bar with the time left and what is made."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    said = TextColumn("{task.description}")
    with Progress(*columns, said, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda share, message: bar.update(task, completed=share, description=message)


def show_arms(rows: list[dict[str, Any]]) -> None:
    """Print each arm's change against the human-only model at the end of the runs, nats a token."""
    from rich.console import Console
    from rich.table import Table

    last = max(row["step"] for row in rows)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["step"] == last and row["domain"] in SHOWN:
            found.setdefault(row["arm"], {})[row["domain"]] = row
    drawn = Table("arm", "human perplexity", *(f"change, {name}" for name in SHOWN), "verdict (human)")
    for arm, domains in found.items():
        changes = []
        for name in SHOWN:
            row = domains.get(name)
            half = row and row["change_half_width"]
            changes.append("" if row is None else f"{row['change']:+.3f}" + ("" if half is None else f" ± {half:.3f}"))
        drawn.add_row(arm, f"{domains['human']['perplexity']:.2f}", *changes, domains["human"]["verdict"])
    console = Console(highlight=False)
    console.print(drawn)
    console.print("Changes against the human-only model of the same seed: nats a token, ± 95 % interval over seeds.")


def show_list() -> None:
    """Print what each experiment asks, costs and takes, without looking at finished models."""
    from rich.console import Console
    from rich.table import Table

    from lm.experiments.designs import EXPERIMENTS
    from lm.experiments.presets import PRESETS

    console = Console(highlight=False)
    for name, experiment in EXPERIMENTS.items():
        console.print(f"[bold]{name}[/]: {experiment.question} Beside the paper: {experiment.paper}.")
        drawn = Table("preset", "models", "FLOPs", "GPU-hours", "disk", "for")
        for preset_name, preset in PRESETS.items():
            made = plans(name, preset_name, preset, None).values()
            drawn.add_row(
                preset_name,
                str(sum(one.counts["models"] for one in made)),
                f"{sum(sum(one.flops.values()) for one in made):.2g}",
                f"{sum(one.gpu_hours for one in made):.2g}",
                size_of(sum(one.disk for one in made)),
                preset.machine,
            )
        console.print(drawn)
    print("The three share the human-only models. `toedit plan NAME --preset PRESET` tells more.")
