"""The chain: skips by content, notices every change, survives damage, never runs twice at once."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from rich.console import Console

from paper import chain
from paper.commands.reproduce import STEPS, Reproduce
from paper.errors import InputError

STEP = """
    from pathlib import Path
    {imports}
    CONFIG = {{"seed": 1}}
    SECONDS = 1.0
    NEEDS = {needs}

    def run(config, needs, folder, progress):
        with Path({log!r}).open("a") as log:
            log.write(__name__.rsplit(".", 1)[1] + "\\n")
        progress(0.5, "half way")
        return {{"value": {value}}}
"""
SCRIPT = """
    from pathlib import Path
    from rich.console import Console
    from paper.chain import run

    if __name__ == "__main__":
        results = run(["first", "second"], Path({results!r}), Console(quiet=True))
        print(results["second"]["data"]["value"])
"""


@pytest.fixture
def project(tmp_path):
    """A project of two steps, run by the real chain: `second` reads what `first` computed through a helper."""
    root = tmp_path / "project"
    (root / "paper" / "steps").mkdir(parents=True)
    for name in ("__init__.py", "chain.py", "results.py", "errors.py"):
        shutil.copy(chain.ROOT / "paper" / name, root / "paper" / name)
    (root / "paper" / "steps" / "__init__.py").write_text("")
    (root / "requirements.lock").write_text("")
    (root / "paper" / "helper.py").write_text("VALUE = 2\n")
    log = tmp_path / "log"
    for name, imports, needs, value in (
        ("first", "from paper.helper import VALUE", (), "VALUE"),
        ("second", "", ("first",), "needs['first']['data']['value'] + 1"),
    ):
        text = STEP.format(imports=imports, needs=needs, value=value, log=str(log))
        (root / "paper" / "steps" / f"{name}.py").write_text(textwrap.dedent(text))
    (root / "run.py").write_text(textwrap.dedent(SCRIPT.format(results=str(tmp_path / "results"))))

    def run():
        """Return the value of `second` and the names of the steps that really ran."""
        log.write_text("")
        environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, root / "run.py"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout), log.read_text().split()

    return root, tmp_path / "results", run


def test_second_run_skips_everything(project):
    _, _, run = project
    assert run() == (3, ["first", "second"])
    assert run() == (3, [])


def test_change_in_an_imported_file_is_noticed_downstream(project):
    root, _, run = project
    run()
    (root / "paper" / "helper.py").write_text("VALUE = 5\n")
    assert run() == (6, ["first", "second"])


def test_a_change_that_leaves_the_numbers_stops_there(project):
    root, _, run = project
    run()
    (root / "paper" / "helper.py").write_text("VALUE = 2  # the same\n")
    assert run() == (3, ["first"])


def test_a_touched_but_equal_file_changes_nothing(project):
    root, _, run = project
    run()
    helper = root / "paper" / "helper.py"
    helper.write_text(helper.read_text())
    assert run() == (3, [])


@pytest.mark.parametrize("damage", [b"", b'{"key": ', b"[]"])
def test_a_damaged_result_is_made_again(project, damage):
    _, results, run = project
    run()
    (results / "first" / "result.json").write_bytes(damage)
    assert run() == (3, ["first"])


def test_two_runs_at_once_are_refused(project):
    _, results, run = project
    run()
    with chain.only_one(results), pytest.raises(InputError, match="another run"):
        chain.run([], results, Console(quiet=True))


def test_unwritable_results_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another with --results"), chain.only_one(tmp_path / "file" / "x"):
        pass


def test_every_step_is_wired_and_comes_after_what_it_needs():
    for index, name in enumerate(STEPS):
        step = chain.load(name)
        assert set(step.NEEDS) <= set(STEPS[:index]), name
        assert step.SECONDS > 0


def test_a_step_depends_on_the_engines_that_it_uses():
    files = {path.relative_to(chain.ROOT).as_posix() for path in chain.closure("paper.steps.curves")}
    assert {"sim/regression.py", "theory/closed_forms.py", "theory/__init__.py"} <= files


def test_unknown_step_is_refused():
    with pytest.raises(InputError, match="no step is called 'curve'"):
        Reproduce(only=("curve",)).run()
