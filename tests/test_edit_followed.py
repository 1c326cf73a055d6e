"""Documents followed through generations: which they are, whatever the order of the files, and how many."""

import json

import pytest

from lm.editing import followed
from lm.editing.config import EditConfig
from lm.editing.excerpt import order_of
from lm.editing.inputs import find_tasks
from lm.editing.settings import Settings


@pytest.fixture
def tasks(tmp_path):
    def made(sizes):
        folder = tmp_path / "texts"
        folder.mkdir(exist_ok=True)
        names = []
        for number, size in enumerate(sizes):
            row = {"id": f"document {number}", "text": f"{number} " + "x" * size}
            name = folder / f"{number % 3}.jsonl"
            with name.open("a") as file:
                file.write(json.dumps(row) + "\n")
            names.append(str(name))
        return find_tasks(sorted(set(names)), tmp_path / "out")

    return made


def _keys(tasks, share):
    return [key for key, _, _ in followed.followed(tasks, Settings(EditConfig(), sample=share))]


def test_they_are_those_of_the_smallest_hashes_in_any_order(tasks, monkeypatch):
    monkeypatch.setattr(followed, "FEWEST", 5)
    found = tasks([10] * 60)
    by_hash = sorted((f"document {number}" for number in range(60)), key=order_of)
    half = [key for key in by_hash if order_of(key) < 2**63]
    assert 10 < len(half) < 50
    for share, wanted in ((0.0, by_hash[:5]), (0.5, half), (1.0, by_hash)):
        assert _keys(found, share) == _keys(found[::-1], share) == wanted


def test_their_bytes_are_bounded_and_the_order_still_does_not_matter(tasks, monkeypatch):
    monkeypatch.setattr(followed, "MOST", 1000)
    monkeypatch.setattr(followed, "LONGEST", 400)
    sizes = [37 * number % 450 for number in range(60)]
    found = tasks(sizes)
    kept = _keys(found, 1.0)
    assert kept == _keys(found[::-1], 1.0)
    by_hash = sorted((n for n in range(60) if sizes[n] + len(f"{n} ") <= 400), key=lambda n: order_of(f"document {n}"))
    wanted, size = [], 0
    for number in by_hash:
        size += sizes[number] + len(f"{number} ")
        if size > 1000:
            break
        wanted.append(f"document {number}")
    assert kept == wanted
