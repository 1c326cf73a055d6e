"""Training by several processes: starting them together, and batches of which each makes its own rows."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from orbax.checkpoint import multihost

from lm.errors import InputError
from lm.train.step import Batch, batch_sharding, stop_sharding

DONE = "done"  # says process 0 if nothing went wrong
PATIENCE = 1000  # milliseconds between two moments at which a process that waits hears Ctrl-C


@dataclasses.dataclass(frozen=True)
class Processes:
    """How the processes of a run find each other; empty for a run of one process.

    Attributes:
        coordinator: HOST:PORT at which process 0 listens; by default $TOEDIT_COORDINATOR.
        count: number of processes; by default $TOEDIT_PROCESSES.
        number: of this process, from 0; by default $TOEDIT_PROCESS.
    """

    coordinator: str | None = None
    count: int | None = None
    number: int | None = None

    def filled(self) -> "Processes":
        """Return the same with what is not given taken from the environment.

        Raises:
            InputError: some of the three are missing, or they do not fit each other.
        """
        coordinator = self.coordinator or os.environ.get("TOEDIT_COORDINATOR")
        count = self.count if self.count is not None else _number("TOEDIT_PROCESSES")
        number = self.number if self.number is not None else _number("TOEDIT_PROCESS")
        given = [value is not None for value in (coordinator, count, number)]
        if any(given) and not all(given):
            raise InputError(
                "several processes need a coordinator (HOST:PORT), their count and each one's number; give all three"
            )
        if count is not None and number is not None and not 0 <= number < count:
            raise InputError(f"there is no process {number} of {count}; they are numbered from 0")
        return Processes(coordinator, count, number)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise InputError(f"${name} is {text!r}; make it a whole number") from error


def connect(processes: Processes) -> None:
    """Join the other processes, if there are to be any; before anything else asks JAX for devices.

    Raises:
        InputError: incomplete settings, or the others cannot be reached.
    """
    filled = processes.filled()
    if filled.coordinator is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(filled.coordinator, filled.count, filled.number)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"process {filled.number} cannot join the others at {filled.coordinator} ({reason}); check the address "
            "and that all of them are started"
        ) from error


@contextlib.contextmanager
def first_alone(what: str) -> Iterator[None]:
    """Let process 0 do what is in the body before the others, however long it takes.

    They wait for its word, not in a collective operation, which gives up after half a minute. JAX ends them if it dies.

    Args:
        what: is done, differently named each time.

    Raises:
        InputError: in every process what process 0 raised, or that it stopped.
    """
    if jax.process_count() == 1:
        yield
        return
    client, key = multihost.get_jax_distributed_client(), f"toedit/{what}"
    if jax.process_index():
        if (said := _word(client, key)) != DONE:
            raise InputError(said)
        yield
        return
    said = f"process 0 stopped before it had {what}"
    try:
        yield
        said = DONE
    except Exception as error:
        said = str(error) or said
        raise
    finally:
        client.key_value_set(key, said)


def _word(client: Any, key: str) -> str:
    """Return what process 0 says under a key, once it does."""
    while True:
        try:
            return client.blocking_key_value_get(key, PATIENCE)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def global_batch(mesh: Mesh, batch: int, rows: Sequence[np.ndarray]) -> Batch:
    """Return a batch on the mesh from this process's rows.

    Args:
        mesh: of all processes.
        batch: rows of all processes together.
        rows: inputs, targets and segments of this process, int32, shape (A, rows of a part, T) each.
    """
    place = batch_sharding(mesh)
    return Batch(
        *(
            jax.make_array_from_process_local_data(place, array, (len(array), batch // len(array), array.shape[2]))
            for array in rows
        )
    )


def stop_flags(mesh: Mesh, stop: bool) -> Any:
    """Return one flag a device, int32, all of this process's the same."""
    return jax.make_array_from_process_local_data(
        stop_sharding(mesh), np.full(len(mesh.local_devices), stop, np.int32), (mesh.size,)
    )
