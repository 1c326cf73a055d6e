"""Audit of the paper's own tables: averages, standard errors, differences against them, contradictions.

Every function takes the cells of `paper/data/paper-tables.csv` and returns flat rows. Nothing here needs a
model: the questions are whether printed numbers agree with each other and what they can show.
"""

import csv
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import erf, floor, sqrt
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
TABLES, SIZES = DATA / "paper-tables.csv", DATA / "task-sizes.csv"
Row = dict[str, Any]

NAMES = {"HS": "HellaSwag", "WG": "Winogrande", "Wino.": "Winogrande", "ARC-E": "ARC-e"}
DETECTABLE = 2.80  # standard errors seen with power 0.8 by a two-sided test at 0.05: 1.960 + 0.842
NO_SIZE = "size of the test set not certain, or the score is no share of right answers (F1): left out"


@dataclass(frozen=True)
class Cell:
    """One printed number.

    Attributes:
        table: number of the table.
        model: model as printed.
        row: row label.
        column: column label.
        value: the number.
        decimals: decimals printed.
        se: printed standard error, None where there is none.
        unit: "%", "ppl", "tokens", ...
    """

    table: int
    model: str
    row: str
    column: str
    value: float
    decimals: int
    se: float | None
    unit: str

    @property
    def task(self) -> str:
        """The task's name, the same in every table."""
        name = self.column.rsplit(": ", 1)[-1]
        return NAMES.get(name, name)

    @property
    def group(self) -> str:
        """The block of columns that a printed average covers: a domain, or empty."""
        return self.column.rsplit(": ", 1)[0] if ": " in self.column else ""


@dataclass(frozen=True)
class Task:
    """A test set: size, chance level and the share of its most frequent answer in per cent (None: unknown)."""

    size: int
    chance: float | None
    majority: float | None


def load_cells(path: Path = TABLES) -> list[Cell]:
    """Return all printed numbers."""
    with path.open(newline="") as file:
        return [
            Cell(
                int(line["table"]),
                line["model"],
                line["row"],
                line["column"],
                float(line["value"]),
                len(line["value"].partition(".")[2]),
                float(line["se"]) if line["se"] else None,
                line["unit"],
            )
            for line in csv.DictReader(file)
        ]


def load_tasks(path: Path = SIZES) -> dict[str, Task]:
    """Return the test sets whose size is certain."""
    with path.open(newline="") as file:
        return {
            line["task"]: Task(
                int(line["size"]),
                float(line["chance"]) if line["chance"] else None,
                float(line["majority"]) if line["majority"] else None,
            )
            for line in csv.DictReader(file)
        }


def lines(cells: Iterable[Cell]) -> dict[tuple[int, str, str], list[Cell]]:
    """Return cells by (table, model, row)."""
    found: dict[tuple[int, str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.table, cell.model, cell.row), []).append(cell)
    return found


def averaged(line: Sequence[Cell]) -> list[tuple[Cell, list[Cell]]]:
    """Return each printed average of a row with the cells that it should average."""
    if line[0].table == 1:
        blocks, current = [], []
        for cell in line:
            if cell.column.startswith("Avg"):
                blocks.append((cell, current))
                current = []
            else:
                current.append(cell)
        return blocks
    return [
        (cell, [other for other in line if other.group == cell.group and other.task != "Avg"])
        for cell in line
        if cell.task == "Avg"
    ]


def averages(cells: Sequence[Cell]) -> list[Row]:
    """Recompute every printed average.

    It agrees when the difference is at most the rounding of the average plus that of the entries (truncation
    allowed: one unit of the last printed decimal each). `entry_missing` is the one further entry that would make
    the printed average right.
    """
    rows = []
    for (table, model, row), line in lines(cells).items():
        for printed, entries in averaged(line):
            mean = sum(cell.value for cell in entries) / len(entries)
            slack = 10.0**-printed.decimals + sum(10.0**-cell.decimals for cell in entries) / len(entries) / 2
            agree = abs(printed.value - mean) <= slack
            rows.append(
                {
                    "table": table,
                    "model": model,
                    "row": row,
                    "average": printed.column,
                    "entries": len(entries),
                    "printed": printed.value,
                    "recomputed": round(mean, 4),
                    "difference": round(printed.value - mean, 4),
                    "agrees": agree,
                    "entry_missing": None
                    if agree
                    else round(printed.value * (len(entries) + 1) - sum(cell.value for cell in entries), 2),
                }
            )
    return rows


def standard_error(score: float, size: int) -> float:
    """Return the binomial standard error of a score in per cent, with the n - 1 of lm-evaluation-harness."""
    share = score / 100
    return 100 * sqrt(share * (1 - share) / (size - 1))


def scores(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are task scores in per cent."""
    return [cell for cell in cells if cell.unit == "%" and cell.task != "Avg" and cell.table not in (6, 15)]


def standard_errors(cells: Sequence[Cell], tasks: Mapping[str, Task]) -> list[Row]:
    """Return every task score with its binomial standard error, and check the printed ones of Table 11.

    A printed standard error agrees when it is within one unit of its last decimal of the binomial one.
    """
    rows = []
    for cell in scores(cells):
        task = tasks.get(cell.task)
        row: Row = {"table": cell.table, "model": cell.model, "row": cell.row, "task": cell.task, "score": cell.value}
        row |= {"size": None, "standard_error": None, "note": NO_SIZE}
        if task is not None:
            row |= {"size": task.size, "standard_error": round(standard_error(cell.value, task.size), 4), "note": ""}
        row |= {"printed_se": cell.se, "printed_se_agrees": None, "implied_size": None}
        if cell.se is not None:
            share = cell.value / 100
            row["implied_size"] = round(share * (1 - share) / (cell.se / 100) ** 2) + 1
            if task is not None:
                row["printed_se_agrees"] = abs(cell.se - standard_error(cell.value, task.size)) <= 2e-3
        rows.append(row)
    return rows


def on_grid(value: float, decimals: int, size: int) -> bool:
    """Whether a printed percentage is k/size for a whole k, rounded or truncated at its last decimal.

    Truncation of 100 * 0.286 = 28.599999... in binary gives 28.59, so a whole unit below counts as well.
    """
    unit = 10.0**-decimals
    centre = value * size / 100
    for k in range(max(0, floor(centre) - 1), floor(centre) + 3):
        gap = 100 * k / size - value
        if abs(gap) <= unit / 2 + 1e-9 or 0 <= gap <= unit + 1e-9:
            return True
    return False


def grid(cells: Sequence[Cell], tasks: Mapping[str, Task]) -> list[Row]:
    """Check that printed scores are whole numbers of right answers (granularity of the test set).

    `chance_to_pass` is how often an arbitrary number with these decimals would pass; where it is 1 the check
    decides nothing and the cell is left out.
    """
    rows = []
    for cell in scores(cells):
        task = tasks.get(cell.task)
        if task is None:
            continue
        passing = min(1.0, 1.5 * task.size * 10.0 ** -(cell.decimals + 2))
        if passing >= 1:
            continue
        rows.append(
            {
                "table": cell.table,
                "model": cell.model,
                "row": cell.row,
                "task": cell.task,
                "score": cell.value,
                "size": task.size,
                "possible": on_grid(cell.value, cell.decimals, task.size),
                "chance_to_pass": round(passing, 3),
            }
        )
    return rows


def below_chance(cells: Sequence[Cell], tasks: Mapping[str, Task]) -> list[Row]:
    """Return the scores more than two standard errors below guessing, and those below the most frequent answer."""
    rows = []
    for cell in scores(cells):
        task = tasks.get(cell.task)
        if task is None or task.chance is None:
            continue
        error = standard_error(cell.value, task.size)
        z = (cell.value - task.chance) / error
        majority = task.majority is not None and cell.value < task.majority
        if z < -2 or majority:
            rows.append(
                {
                    "table": cell.table,
                    "model": cell.model,
                    "row": cell.row,
                    "task": cell.task,
                    "score": cell.value,
                    "chance": task.chance,
                    "z": round(z, 2),
                    "below_chance": z < -2,
                    "most_frequent_answer": task.majority,
                }
            )
    return rows


PAIRS: tuple[tuple[int, str, str], ...] = (
    (2, "PT", "ToEdit"),
    (3, "base", "CPT"),
    (3, "CPT", "ToEdit"),
    *((4, f"{name}|source", f"{name}|ToEdit") for name in ("Natural Instructions", "CoT", "FLANv2", "Open Assistant")),
    *((4, f"{name}|source", f"{name}|ToEdit") for name in ("OSS-Instruct", "Evol-Instruct")),
    *((5, "p >= 0.99", row) for row in ("p >= 0.999", "p <= 0.1", "p <= 0.01")),
    (7, "top-k", "top-p"),
    (7, "top-k", "rejection sampling"),
    (8, "k = 8", "k = 64"),
    *((table, "synthetic 0%", f"synthetic {share}%") for table in (9, 11) for share in (25, 50, 75, 100)),
    (16, "Gen 0", "Gen 1"),
    (16, "Gen 0", "Gen 2"),
)
"""Rows that the paper compares: table, base, other."""


def differences(cells: Sequence[Cell], tasks: Mapping[str, Task]) -> list[Row]:
    """Return other minus base for every pair of rows, with the unpaired standard error.

    The two scores come from the same questions: a paired standard error, which needs the answers and not the
    scores, would be smaller, by a factor sqrt(1 - correlation).
    """
    rows = []
    for (table, model, row), line in lines(cells).items():
        for number, base, other in PAIRS:
            if number != table or row != base:
                continue
            partner = {cell.column: cell for cell in lines(cells).get((table, model, other), [])}
            for cell in scores(line):
                if cell.column not in partner:
                    continue
                task, second = tasks.get(cell.task), partner[cell.column]
                error = z = None
                if task is not None:
                    error = sqrt(
                        standard_error(cell.value, task.size) ** 2 + standard_error(second.value, task.size) ** 2
                    )
                    z = (second.value - cell.value) / error if error > 0 else None
                rows.append(
                    {
                        "table": table,
                        "model": model,
                        "group": cell.group,
                        "base": base,
                        "other": other,
                        "task": cell.task,
                        "base_score": cell.value,
                        "other_score": second.value,
                        "difference": round(second.value - cell.value, 2),
                        "standard_error": None if error is None else round(error, 3),
                        "z": None if z is None else round(z, 2),
                        "note": "unpaired" if task is not None else NO_SIZE,
                    }
                )
    return rows


def average_differences(rows: Sequence[Row]) -> list[Row]:
    """Return the mean difference of each comparison over the tasks with a standard error, and what could be seen."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("table", "model", "group", "base", "other"))
        groups.setdefault(key, []).append(row)
    found = []
    for key, members in groups.items():
        known = [row for row in members if row["standard_error"]]
        out = dict(zip(("table", "model", "group", "base", "other"), key, strict=True))
        out |= {"tasks": len(members), "with_standard_error": len(known)}
        if known:
            mean = sum(row["difference"] for row in known) / len(known)
            error = sqrt(sum(row["standard_error"] ** 2 for row in known)) / len(known)
            out |= {
                "mean_difference": round(mean, 3),
                "standard_error": round(error, 3),
                "z": round(mean / error, 2),
                "p_value": round(1 - erf(abs(mean / error) / sqrt(2)), 4),
                "detectable": round(DETECTABLE * error, 2),
            }
        out |= {
            "up": sum(row["difference"] > 0 for row in members),
            "down": sum(row["difference"] < 0 for row in members),
        }
        found.append(out)
    return found


SAME: tuple[tuple[str, tuple[int, str, str], tuple[int, str, str]], ...] = (
    ("p = .99, top-k, k = 8", (7, "not stated", "top-k"), (8, "not stated", "k = 8")),
    ("p = .99, top-k, k = 8", (5, "not stated", "p >= 0.99"), (7, "not stated", "top-k")),
    ("ToEdit on biomedicine, stated settings", (3, "OLMo-1B", "ToEdit"), (5, "not stated", "p >= 0.99")),
    ("CoT, unedited", (4, "Llama-3-8B", "CoT|source"), (16, "not stated", "Gen 0")),
    ("CoT, edited once", (4, "Llama-3-8B", "CoT|ToEdit"), (16, "not stated", "Gen 1")),
)
"""Rows of two tables that describe the same setting as far as the text says."""


def contradictions(cells: Sequence[Cell], tasks: Mapping[str, Task]) -> list[Row]:
    """Compare the cells that two tables share."""
    table = lines(cells)
    rows = []
    for setting, first, second in SAME:
        right = {cell.task: cell for cell in table.get(second, [])}
        for cell in table.get(first, []):
            other = right.get(cell.task)
            if other is None or (cell.task == "Avg" and cell.group not in ("", "Biomedicine")):
                continue
            task = tasks.get(cell.task)
            error = None
            if task is not None:
                error = sqrt(2) * standard_error((cell.value + other.value) / 2, task.size)
            rows.append(
                {
                    "setting": setting,
                    "first": f"Table {first[0]}, {first[2]}",
                    "second": f"Table {second[0]}, {second[2]}",
                    "column": cell.task,
                    "first_value": cell.value,
                    "second_value": other.value,
                    "same": cell.value == other.value,
                    "z": None if error is None else round((other.value - cell.value) / error, 2),
                }
            )
    return rows


SHARES = (0, 25, 50, 75, 100)
SKIP = {"Training Tokens", "Epochs", "Unique Tokens"}


def mixtures(cells: Sequence[Cell]) -> dict[tuple[str, str, str], dict[int, Cell]]:
    """Return, for every evaluation set of the mixture experiments, the cell of each synthetic share.

    Keys are (tables, condition, column); Tables 13 and 17 are two halves of one experiment.
    """
    found: dict[tuple[str, str, str], dict[int, Cell]] = {}
    for cell in cells:
        if cell.table not in (1, 9, 11, 13, 14, 17) or not cell.row.startswith("synthetic") or cell.column in SKIP:
            continue
        share, _, condition = cell.row.removeprefix("synthetic ").partition("|")
        name = "13, 17" if cell.table in (13, 17) else str(cell.table)
        found.setdefault((name, condition, cell.column), {})[int(share.rstrip("%"))] = cell
    return found


def monotonicity(cells: Sequence[Cell]) -> list[Row]:
    """Follow claim C1 along the synthetic share: steps that improve, and whether pure synthetic is the worst.

    Perplexity should rise and scores should fall with every step; a tie is no worsening either.
    """
    rows = []
    for (table, condition, column), by_share in mixtures(cells).items():
        if column.startswith("Avg") or set(by_share) != set(SHARES):
            continue
        sign = 1 if by_share[0].unit == "ppl" else -1
        values = [by_share[share].value for share in SHARES]
        harm = [sign * (b - a) for a, b in itertools.pairwise(values)]
        rows.append(
            {
                "tables": table,
                "condition": condition,
                "column": column,
                **{f"synthetic_{share}": by_share[share].value for share in SHARES},
                "steps_without_harm": sum(step <= 0 for step in harm),
                "pure_is_worst": sign * values[-1] > max(sign * value for value in values[:-1]),
                "three_quarters_beats_pure": sign * values[-2] < sign * values[-1],
            }
        )
    return rows


def edited_tokens(cells: Sequence[Cell]) -> list[Row]:
    """Recompute Table 15: shares, ratios between generations and their counting error."""
    counts = {cell.row: cell for cell in cells if cell.table == 15 and cell.unit == "tokens"}
    total = counts.pop("all generations").value
    percent = {cell.row: cell for cell in cells if cell.table == 15 and cell.unit == "%"}
    rows, before = [], None
    for name, cell in counts.items():
        share = 100 * cell.value / total
        row: Row = {"generation": name, "tokens": cell.value, "printed_percent": percent[name].value}
        row |= {"recomputed_percent": round(share, 4), "ratio": None, "ratio_se": None}
        row["agrees"] = abs(share - percent[name].value) <= 10.0 ** -percent[name].decimals
        if before is not None:
            ratio = cell.value / before
            # Poisson counting error of two counts; the same text underlies both, so this is an upper limit.
            row |= {"ratio": round(ratio, 4), "ratio_se": round(ratio * sqrt(1 / cell.value + 1 / before), 4)}
        rows.append(row)
        before = cell.value
    return rows


def token_probabilities(cells: Sequence[Cell]) -> list[Row]:
    """Recompute Table 6: shares from counts, and the share below 0.6 of claim C10."""
    percent = [cell for cell in cells if cell.table == 6 and cell.unit == "%"]
    counts = {cell.column: cell.value for cell in cells if cell.table == 6 and cell.unit == "M tokens"}
    total = sum(counts.values())
    rows: list[Row] = [
        {
            "interval": cell.column,
            "printed_percent": cell.value,
            "recomputed_percent": round(100 * counts[cell.column] / total, 2),
            "agrees": abs(100 * counts[cell.column] / total - cell.value) <= 0.1,
        }
        for cell in percent
    ]
    under = [cell for cell in percent if float(cell.column[1:4]) < 0.6]
    rows.append(
        {
            "interval": "below 0.6 (C10 says 75)",
            "printed_percent": round(sum(cell.value for cell in under), 1),
            "recomputed_percent": round(100 * sum(counts[cell.column] for cell in under) / total, 2),
            "agrees": abs(sum(cell.value for cell in under) - 75) <= 1,
        }
    )
    return rows


def totals(cells: Sequence[Cell]) -> list[Row]:
    """Recompute what other tables add up or multiply: Table 18's totals, Table 14's training tokens."""
    rows: list[Row] = []
    table = lines(cells)
    for cell in table.get((18, "none (Dolma v1.6)", "Total"), []):
        parts = [
            other.value for other in cells if other.table == 18 and other.row != "Total" and other.column == cell.column
        ]
        rows.append(_sum_row("18", cell.column, cell.value, sum(parts), 0.5 * len(parts) + 0.5))
    for (number, _, row), line in table.items():
        if number != 14:
            continue
        by_column = {cell.column: cell for cell in line}
        unique, epochs, trained = (by_column[name] for name in ("Unique Tokens", "Epochs", "Training Tokens"))
        slack = 0.5 * 10.0**-unique.decimals * epochs.value + 0.5 * 10.0**-trained.decimals
        rows.append(_sum_row("14", f"{row}: unique x epochs", trained.value, unique.value * epochs.value, slack))
    return rows


def _sum_row(table: str, what: str, printed: float, recomputed: float, slack: float) -> Row:
    return {
        "table": table,
        "what": what,
        "printed": printed,
        "recomputed": round(recomputed, 3),
        "rounding": round(slack, 3),
        "agrees": abs(printed - recomputed) <= slack + 1e-9,
    }


def selection(cells: Sequence[Cell]) -> list[Row]:
    """Set the selected synthetic arms of Table 14 beside unselected synthetic text and the 75 % mixture (C8)."""
    arms = {
        row: {cell.column: cell.value for cell in line if cell.column not in SKIP}
        for (table, _, row), line in lines(cells).items()
        if table == 14
    }
    pure, mixed = arms["synthetic 100%|epoch 1"], arms["synthetic 75%|epoch 1"]
    return [
        {
            "arm": name,
            "sets": len(values),
            "better_than_unselected": sum(values[column] < pure[column] for column in values),
            "better_than_75_percent_mix": sum(values[column] < mixed[column] for column in values),
        }
        for name, values in arms.items()
        if not name.startswith("synthetic")
    ]


def above_baseline(cells: Sequence[Cell]) -> list[Row]:
    """Set the ablation's averages (Table 5) beside Table 3's biomedicine averages of OLMo-1B."""
    table = lines(cells)
    reference = {
        row: next(cell.value for cell in table[3, "OLMo-1B", row] if cell.column == "Biomedicine: Avg")
        for row in ("base", "CPT", "ToEdit")
    }
    return [
        {
            "row": row,
            "average": cell.value,
            **{f"minus_{name}": round(cell.value - value, 2) for name, value in reference.items()},
        }
        for (number, _, row), line in table.items()
        if number == 5
        for cell in line
        if cell.column == "Avg"
    ]


CLAIMS = {
    "C1": "more synthetic data in the mixture, worse perplexity and scores; pure synthetic is worst",
    "C2": "human data in the mixture softens the loss",
    "C3": "training loss falls as the synthetic share rises while validation perplexity rises",
    "C4": "synthetic perplexity under a prior is confined to the lowest quarter of the human range",
    "C5": "the shapes agree across priors, and narrowing gets severe at scale",
    "C6": "synthetic text over-concentrates n-grams",
    "C7": "with 1,000 x 20,000 hashing buckets most responses are near zero",
    "C8": "selection towards human features does not repair synthetic data",
    "C9": "selected samples stay apart from human text in embedding space",
    "C10": "token probabilities on human text are U-shaped and 75 % of tokens lie under 0.6",
    "C11": "editing prevents collapse because it keeps the initial distribution's coverage",
    "C12": "ToEdit improves pre-training, continual pre-training and fine-tuning",
    "C13": "resampling confident tokens flattens the U and raises entropy",
    "C14": "without constraints the variance of generated data shrinks over generations",
    "C15": "the share of tokens above 0.99 falls with each editing generation",
    "C16": "performance does not fall over edit generations",
    "C17": "coverage narrowing: a much narrower value range at equal size and mass",
    "C18": "synthetic samples that match human n-gram features are hard to find",
    "C19": "token replacement may hurt coherence; a high p limits that",
    "C20": "the method is cheap enough for one consumer GPU",
    "C21": "the source need not be fully human",
    "C22": "for collapsed data a lower threshold can put randomness back",
    "C23": "top-k and top-p cut the tail",
    "C24": "forced tail samples mix noise with information",
    "C25": "semi-synthetic data helps, pure synthetic data collapses",
}
CONDITIONS = {
    "C1": "pure synthetic against less of it, not step by step; perplexity, not single tasks",
    "C8": "'repair' means reaching the 75 % mixture; perplexity filtering does beat unselected synthetic text",
    "C10": "the shape, not the share",
}


def verdicts(tables: Mapping[str, list[Row]]) -> list[Row]:
    """Return what the tables say on each qualitative claim C1..C25; the verdict is computed from the rows."""
    mono = tables["monotonicity"]
    ppl = [row for row in mono if row["tables"] not in ("9", "11")]
    tests = [row for row in mono if row["tables"] in ("9", "11")]
    harmless = sum(row["steps_without_harm"] for row in ppl)
    worst = sum(row["pure_is_worst"] for row in ppl)
    found: dict[str, tuple[str, str]] = {}

    c1 = "holds" if worst == len(ppl) and harmless == 0 else "holds under a condition" if worst == len(ppl) else "fails"
    found["C1"] = (
        c1,
        f"perplexity: pure synthetic is worst on {worst} of {len(ppl)} sets; {harmless} of {4 * len(ppl)} single steps "
        f"do no harm; scores: pure synthetic is worst on "
        f"{sum(row['pure_is_worst'] for row in tests)} of {len(tests)} tasks",
    )
    softened = sum(row["three_quarters_beats_pure"] for row in ppl)
    found["C2"] = (
        "holds" if softened == len(ppl) else "fails",
        f"perplexity at 75 % below 100 % on {softened} of {len(ppl)} sets (one run each, no seeds)",
    )
    arms = tables["selection"]
    full = [row["arm"] for row in arms if row["better_than_unselected"] == row["sets"]]
    repaired = sum(row["better_than_75_percent_mix"] for row in arms)
    found["C8"] = (
        "holds" if not full else "holds under a condition" if not repaired else "fails",
        f"better than unselected text on every set: {', '.join(full) or 'none'}; better than the 75 % mixture: "
        f"{repaired} of {sum(row['sets'] for row in arms)} cells",
    )
    deciles, below = tables["token_probabilities"][:-1], tables["token_probabilities"][-1]
    order = sorted(deciles, key=lambda row: -row["printed_percent"])
    ends = {deciles[0]["interval"], deciles[-1]["interval"]}
    u_shape = {row["interval"] for row in order[:2]} == ends
    found["C10"] = (
        "holds" if u_shape and below["agrees"] else "holds under a condition" if u_shape else "fails",
        f"Table 6: the two outer deciles are the largest ({'yes' if u_shape else 'no'}), {below['printed_percent']} % "
        "of tokens below 0.6, not 75 % (another corpus and prior)",
    )
    edits = [row for row in tables["average_differences"] if row["other"].endswith("ToEdit") and "z" in row]
    single = [
        row
        for row in tables["differences"]
        if row["other"].endswith("ToEdit") and row["z"] is not None and row["table"] < 5
    ]
    weights = [1 / row["standard_error"] ** 2 for row in edits]
    pooled = sum(w * row["mean_difference"] for w, row in zip(weights, edits, strict=True)) / sum(weights)
    pooled_error = 1 / sqrt(sum(weights))
    up, down = sum(row["z"] > 2 for row in single), sum(row["z"] < -2 for row in single)
    rises = sum(row["mean_difference"] > 0 for row in edits)
    detectable = DETECTABLE * pooled_error
    # A gain is shown only when it clears 4 standard errors, the width of every comparison in the ledger.
    found["C12"] = (
        "holds" if pooled > 4 * pooled_error else "fails" if pooled < -4 * pooled_error else "untestable here",
        f"{len(single)} task differences with a standard error: {up} above +2, {down} below -2 SE; {rises} of "
        f"{len(edits)} mean differences rise, pooled {pooled:+.2f} +- {pooled_error:.2f} points unpaired; detectable "
        f"{detectable:.2f}",
    )
    ratios = [row for row in tables["edited_tokens"] if row["ratio"] is not None]
    fall = all(row["ratio"] + 4 * row["ratio_se"] < 1 for row in ratios)
    found["C15"] = (
        "holds" if fall else "fails",
        "ratios "
        + ", ".join(f"{row['ratio']} +- {row['ratio_se']}" for row in ratios)
        + " (one corpus, counting error)",
    )
    later = [row for row in tables["average_differences"] if row["table"] == 16]
    worst_z = min(row["z"] for row in later)
    found["C16"] = (
        "fails" if worst_z < -4 else "untestable here",
        "; ".join(f"{row['other']}: {row['mean_difference']:+.2f} +- {row['standard_error']:.2f}" for row in later)
        + f"; a fall of less than {max(row['detectable'] for row in later):.1f} points could not be seen",
    )
    ablation = [row for row in tables["differences"] if row["table"] == 5 and row["z"] is not None]
    found["C19"] = (
        "untestable here",
        f"coherence is not measured; thresholds of Table 5: {sum(abs(row['z']) > 2 for row in ablation)} "
        f"of {len(ablation)} differences beyond 2 SE",
    )
    rows = []
    for name, text in CLAIMS.items():
        verdict, numbers = found.get(name, ("untestable here", "no numbers printed for it"))
        condition = CONDITIONS.get(name, "") if verdict == "holds under a condition" else ""
        rows.append({"claim": name, "text": text, "verdict": verdict, "numbers": numbers, "condition": condition})
    return rows


def findings(tables: Mapping[str, list[Row]]) -> dict[str, int]:
    """Return how many rows of each table are at fault."""
    faults: dict[str, Callable[[Row], bool]] = {
        "averages": lambda row: not row["agrees"],
        "standard_errors": lambda row: row["printed_se_agrees"] is False,
        "grid": lambda row: not row["possible"],
        "below_chance": lambda row: row["below_chance"],
        "contradictions": lambda row: not row["same"],
        "totals": lambda row: not row["agrees"],
        "edited_tokens": lambda row: not row["agrees"],
    }
    return {name: sum(map(fault, tables[name])) for name, fault in faults.items()}


def audit(cells: Sequence[Cell] | None = None, tasks: Mapping[str, Task] | None = None) -> dict[str, Any]:
    """Return every table of the audit, the verdicts and the counts of faults."""
    cells = load_cells() if cells is None else cells
    tasks = load_tasks() if tasks is None else tasks
    differing = differences(cells, tasks)
    tables: dict[str, list[Row]] = {
        "averages": averages(cells),
        "standard_errors": standard_errors(cells, tasks),
        "grid": grid(cells, tasks),
        "below_chance": below_chance(cells, tasks),
        "differences": differing,
        "average_differences": average_differences(differing),
        "contradictions": contradictions(cells, tasks),
        "monotonicity": monotonicity(cells),
        "selection": selection(cells),
        "edited_tokens": edited_tokens(cells),
        "token_probabilities": token_probabilities(cells),
        "totals": totals(cells),
        "ablation_against_table_3": above_baseline(cells),
    }
    tables["claims"] = verdicts(tables)
    return {"faults": findings(tables), "tables": tables}
