"""`toedit reproduce`: the whole chain, from closed forms to the report."""

import time
from dataclasses import dataclass
from pathlib import Path

# The longest first: two steps at a time then end together.
STEPS = (
    "phase",
    "claims",
    "toys",
    "curves",
    "gerstgrasser",
    "limits",
    "tokens",
    "confidence",
    "paper_bound",
    "one_edit",
    "audit",
    "lm_data",
    "lm_smollm2",
    "lm_edit",
    "lm_edit_again",
    "lm_train",
    "lm_experiments",
    "lm_claims",
    "figures",
    "report",
)


@dataclass(frozen=True)
class Reproduce:
    """Run theory, simulations, ledger, language models and figures, and write results/report.html.

    Steps whose code, configuration and data have not changed are skipped; a killed run continues where
    it was. Example: `toedit reproduce --only curves phase`.
    """

    results: Path = Path("results")
    """Folder for the result files, figures and the report."""
    only: tuple[str, ...] = ()
    """Names of the steps to run, with those that they need; all of them by default."""

    def run(self) -> int:
        """Run the chain; return the exit code."""
        from rich.console import Console

        from paper.chain import load, run
        from paper.errors import InputError

        unknown = sorted(set(self.only) - set(STEPS))
        if unknown:
            raise InputError(f"no step is called {unknown[0]!r}; the steps are {', '.join(STEPS)}")
        wanted = set(self.only or STEPS)
        for name in reversed(STEPS):
            if name in wanted:
                wanted.update(load(name).NEEDS)
        console = Console()
        start = time.perf_counter()
        results = run([name for name in STEPS if name in wanted], self.results, console)
        console.print(f"finished in {time.perf_counter() - start:.0f} s", highlight=False)
        if "report" in results:
            console.print(f"Open {self.results / 'report.html'} in a browser.", highlight=False, soft_wrap=True)
        return 0
