"""The training iterator: batches of packed rows, prefetched, with a state that any number of processes can resume.

The global batch at step s holds the rows s B to (s + 1) B - 1 of the mixture whatever the number of processes;
each process makes only the rows that its devices hold. The state is the number of the next step and a
fingerprint of the data, the same on every process.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from lm.data.corpus import digest
from lm.data.mixture import Mixture, Part, Use
from lm.errors import InputError


class Batch(NamedTuple):
    """Rows of a training batch that one process holds.

    Attributes:
        inputs: ids, shape (B, T), int32.
        targets: the next ids, shape (B, T), int32.
        segments: number of the document in the row, shape (B, T), int32.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segments: np.ndarray


class _Batches(grain.sources.RandomAccessDataSource[Batch]):
    """Batches by their step."""

    def __init__(self, mixture: Mixture, batch: int, steps: int, local: slice):
        self._mixture, self._batch, self._steps, self._local = mixture, batch, steps, local

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        numbers = range(step * self._batch, (step + 1) * self._batch)[self._local]
        rows = [self._mixture[number] for number in numbers]
        return Batch(*(np.stack(column) for column in zip(*rows, strict=True)))


def local_rows(sharding: jax.sharding.Sharding, batch: int, context: int) -> slice:
    """Return which rows of a global batch this process' devices hold under a sharding of (B, T) arrays.

    Raises:
        InputError: the rows are not next to each other, or the batch cannot be divided.
    """
    try:
        places = sharding.addressable_devices_indices_map((batch, context)).values()
    except ValueError as error:
        raise InputError(f"a batch of {batch} rows cannot be divided over the devices; use a multiple") from error
    held = {place[0].indices(batch)[:2] for place in places if place is not None}
    first, behind = min(start for start, _ in held), max(stop for _, stop in held)
    if sum(stop - start for start, stop in held) != behind - first:
        raise InputError("the rows of this process are not next to each other; order the mesh by process")
    return slice(first, behind)


class Loader:
    """Iterates over the batches of a training run.

    Example:
        loader = Loader([Part("human", corpus, "0.75"), Part("synthetic", other, "0.25")], end=tokenizer.end,
            context=1024, batch=64, steps=10_000, seed=0)
        for batch in loader: ...
        state = loader.get_state()  # JSON-serialisable; loader.set_state(state) continues after the last batch
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        end: int,
        context: int,
        batch: int,
        steps: int,
        seed: int,
        local: slice | None = None,
    ):
        """Set up the iterator; nothing is read before the first batch.

        Args:
            parts: of the mixture, with shares that sum to 1.
            end: end-of-text id.
            context: T.
            batch: rows of the global batch, B.
            steps: batches of the run.
            seed: of the orders of the documents.
            local: rows of the global batch that this process makes (see `local_rows`); by default its equal part
                in the order of the processes.

        Raises:
            InputError: what `Mixture` raises; a batch that the processes cannot divide.
        """
        if batch < 1 or context < 1 or steps < 0:
            raise InputError(f"a run of {steps} steps of {batch} x {context} tokens is none; use positive numbers")
        if local is None:
            processes, process = jax.process_count(), jax.process_index()
            if batch % processes:
                raise InputError(
                    f"a batch of {batch} rows cannot be divided over {processes} processes; use a multiple"
                )
            local = slice(process * batch // processes, (process + 1) * batch // processes)
        mixture = Mixture(parts, end, context, seed)
        self.use: tuple[Use, ...] = mixture.use(batch * steps)
        """What the run takes of each part, by part."""
        self.steps = steps
        self._parts = parts
        self._settings = {"end": end, "context": context, "batch": batch, "seed": seed}
        self._print: str | None = None
        data = grain.MapDataset.source(_Batches(mixture, batch, steps, local))
        # Threads of this process: a worker process would copy batches and start slowly to save what is no work.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)  # batches made ahead
        self._iterator = iter(data.to_iter_dataset(options))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the corpora, shares, seed and shapes, hexadecimal; a corpus without one is read for it."""
        if self._print is None:
            parts = [
                [part.name, str(use.share), part.sha256 or digest(part.corpus)]
                for part, use in zip(self._parts, self.use, strict=True)
            ]
            content = json.dumps([self._settings, parts], sort_keys=True)
            self._print = hashlib.sha256(content.encode()).hexdigest()
        return self._print

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> Batch:
        """Return this process' rows of the next batch."""
        return next(self._iterator)

    @property
    def step(self) -> int:
        """Number of batches that were returned: the step of the next one."""
        return int(self._iterator.get_state()["next_index"])

    def get_state(self) -> dict[str, Any]:
        """Return where the iterator is, JSON-serialisable, the same on every process."""
        return {"step": self.step, "data": self.fingerprint}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken, whatever the number of processes then.

        Raises:
            InputError: the state is of other data or settings, or behind the end of the run.
        """
        if state.get("data") != self.fingerprint:
            raise InputError(
                "the checkpoint was made with other training data, shares, seed, batch or context; "
                "give the same ones, or another folder to start again"
            )
        step = state.get("step")
        if not isinstance(step, int) or not 0 <= step <= self.steps:
            raise InputError(f"the checkpoint is at step {step!r} of a run of {self.steps} steps; ask for more steps")
        self._iterator.set_state({"next_index": step})

    def close(self) -> None:
        """Stop making batches ahead."""
        self._iterator.close()
