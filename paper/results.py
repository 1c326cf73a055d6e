"""Result files: numbers with their configuration, seed, versions, commit, machine and wall time."""

import csv
import errno
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from paper.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "matplotlib", "tokenizers")


def plain(value: Any) -> Any:
    """Return `value` in the types that JSON has: arrays become lists, paths texts; non-finite floats are refused.

    Raises:
        TypeError: a type without a JSON counterpart.
        ValueError: NaN or infinity, which JSON cannot hold; use None and say why.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError("a result holds NaN or infinity; write None and the reason instead")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON counterpart")


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place, so that a kill leaves the old file or the new."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and rename it into place.

    Raises:
        InputError: the folder cannot be made or written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise InputError(f"cannot write {path} ({reason}); choose a folder that you may write to") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a list of flat records as CSV, one column a key, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with tempfile.SpooledTemporaryFile(mode="w+", newline="") as buffer:
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        buffer.seek(0)
        write_text(path, buffer.read())


def git(*arguments: str) -> str | None:
    """Return what git prints in the project's folder, None where this is no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def provenance() -> dict[str, Any]:
    """Return versions, commit (with "-dirty" for uncommitted changes to tracked files) and machine."""
    commit = git("rev-parse", "HEAD")
    if commit and git("status", "--porcelain", "--untracked-files=no"):
        commit += "-dirty"
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": commit,
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()},
    }


def processor() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = (line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name"))
        return " ".join(next(names, platform.machine()).split())
    return platform.processor() or platform.machine()


def record(name: str, config: Mapping[str, Any], data: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return a whole result: the numbers and all that is needed to make them again."""
    return plain(
        {
            "name": name,
            "config": config,
            "seed": config.get("seed"),
            **provenance(),
            "wall_seconds": round(seconds, 3),
            "data": data,
        }
    )


def write_record(path: Path, result: Mapping[str, Any], tables: Iterable[str] | None = None) -> None:
    """Write a result as JSON and each of its tables (data["tables"]) as CSV beside it."""
    for name in tables if tables is not None else result["data"].get("tables", {}):
        write_csv(path.parent / f"{name}.csv", result["data"]["tables"][name])
    write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def check_writable(path: Path) -> None:
    """Refuse an output file before the computation; nothing is left behind.

    Raises:
        InputError: the file or its folder cannot be written.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); choose a file in a folder that you may write to"
        ) from error
