"""The entry point of the `toedit` command."""

import os
import sys
import warnings
from typing import Annotated

from paper.interrupts import CODE, interrupts_kept

with interrupts_kept():  # they take a moment
    import tyro

    from lm.errors import InputError as LmError
    from paper.commands.apply import Apply
    from paper.commands.claims import Claims
    from paper.commands.edit import Edit
    from paper.commands.evaluate import Evaluate
    from paper.commands.experiment import Experiment
    from paper.commands.fetch import Fetch
    from paper.commands.generate import Generate
    from paper.commands.note import Note
    from paper.commands.plan import Plan
    from paper.commands.reproduce import Reproduce
    from paper.commands.sim import Sim
    from paper.commands.theory import Theory
    from paper.commands.tokenize import Tokenize
    from paper.commands.train import Train
    from paper.commands.verify import Verify
    from paper.errors import InputError as PaperError
    from sim.errors import InputError as SimError
    from theory.errors import InputError as TheoryError

Command = (
    Annotated[Theory, tyro.conf.subcommand("theory")]
    | Annotated[Sim, tyro.conf.subcommand("sim")]
    | Annotated[Claims, tyro.conf.subcommand("claims")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[Tokenize, tyro.conf.subcommand("tokenize")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Experiment, tyro.conf.subcommand("experiment")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Note, tyro.conf.subcommand("paper")]
)

DESCRIPTION = """Does training on synthetic data collapse, and can token-level editing prevent it?

Start with `toedit theory` (exact errors by generation) or `toedit sim` (the same by literal simulation);
`toedit claims` checks every claim of Zhu et al. (2025, arXiv 2412.14689) and every correction made here;
`toedit experiment --list` tells of the experiments with language models;
`toedit reproduce` runs everything and ends with results/report.html."""


PIPE = 141  # exit code of what ends because nobody reads its output, as shells say it


def main() -> None:
    """Run the subcommand that the command line names; exit 2 with one sentence on bad input."""
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # `toedit ... | head` has seen enough. Python would flush again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE)


def _run() -> None:
    command = None
    try:
        with interrupts_kept(), warnings.catch_warnings():
            warnings.showwarning = _tell
            command = tyro.cli(
                Command, prog="toedit", description=DESCRIPTION, config=(tyro.conf.OmitSubcommandPrefixes,)
            )
            sys.exit(command.run())
    except (TheoryError, SimError, LmError, PaperError) as error:
        print(f"toedit: {error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print("toedit: not enough memory for these sizes; lower them", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        goes_on = isinstance(command, Reproduce | Train | Generate | Edit | Experiment)
        print(f"toedit: stopped{'; the same command continues where it was' if goes_on else ''}", file=sys.stderr)
        sys.exit(CODE)


def _tell(message: Warning | str, *place: object) -> None:
    """Print a warning as one line, without the place in the source that Python adds."""
    print(f"toedit: warning: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
