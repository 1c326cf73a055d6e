"""One update: gradient of a global batch, clipping, AdamW, on a mesh of devices."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lm.model.config import ModelConfig
from lm.model.decoder import Decoder, starting_arrays
from lm.model.packed import PADDING
from lm.model.sharding import BATCH, batch_shares, replicated, shardings, stream_sharding
from lm.train.config import TrainConfig, learning_rate, optimizer
from lm.train.loss import cross_entropy, default_chunk

Array = jax.Array
Leaf = Any  # an array, or in trees of the same form its shape or its sharding
Parameters = dict[str, Leaf]


class State(NamedTuple):
    """What an update changes.

    Attributes:
        done: number of updates behind it, int32, scalar.
        parameters: of the model, by name, float32.
        optimizer: optax's moments, like the parameters, and counts.
    """

    done: Leaf
    parameters: Parameters
    optimizer: Any


class Batch(NamedTuple):
    """A global batch in A parts, int32, shape (A, B / A, T) each.

    Attributes:
        inputs: ids.
        targets: the next ids.
        segments: document number of each input; PADDING where there is nothing, and no target.
    """

    inputs: Leaf
    targets: Leaf
    segments: Leaf


class Measures(NamedTuple):
    """What an update tells, float32 where it is no count.

    Attributes:
        loss: mean negative log-likelihood of the batch's targets, nats, scalar.
        gradient_norm: before clipping, scalar.
        learning_rate: scalar.
        tokens: number of targets of the batch, scalar.
        squares: squared gradient norm of each parameter, by name, scalars: where a gradient is not finite.
        stop: how many devices' processes were asked to stop, scalar.
    """

    loss: Array
    gradient_norm: Array
    learning_rate: Array
    tokens: Array
    squares: dict[str, Array]
    stop: Array


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return where the arrays of a `Batch` live."""
    return NamedSharding(mesh, P(None, BATCH))


def stop_sharding(mesh: Mesh) -> NamedSharding:
    """Return where the stop flags live: one a device."""
    return NamedSharding(mesh, P(mesh.axis_names))


def loss_sum(
    model: ModelConfig,
    chunk: int,
    parameters: Parameters,
    batch: Batch,
    across: bool = False,
    stream: NamedSharding | None = None,
) -> tuple[Array, Array]:
    """Return the sum of negative log-likelihoods of rows (B, T), in nats, and the number of targets."""
    decoder = Decoder(model, parameters, stream)
    if stream is not None:
        chunk = shared_chunk(chunk or default_chunk(), batch.inputs.size, batch_shares(stream.mesh))
    states_NxD = decoder.hidden(batch.inputs, None if across else batch.segments)
    weights_N = (batch.segments.reshape(-1) != PADDING).astype(jnp.float32)
    return cross_entropy(states_NxD, decoder.head_weight(), batch.targets.reshape(-1), weights_N, chunk, model.compute)


def shared_chunk(chunk: int, tokens: int, shares: int) -> int:
    """Return the tokens of a chunk on all devices together: each has an equal part of each chunk.

    A part has at most `chunk` tokens. What each device has is cut evenly, so that no token changes its device, unless
    that takes over twice as many chunks.
    """
    own = -(-tokens // shares)
    least = -(-own // chunk)
    count = next((number for number in range(least, 2 * least + 1) if own % number == 0), least)
    return -(-own // count) * shares


def gradient(
    model: ModelConfig,
    chunk: int,
    parameters: Parameters,
    batch: Batch,
    across: bool = False,
    stream: NamedSharding | None = None,
) -> tuple[Array, Parameters]:
    """Return the mean loss over all targets of the batch and its gradient, part after part.

    Each part adds its sum divided by the number of targets of the whole batch, so that parts with more padding
    weigh less, as they do in one piece.

    Args:
        model: sizes.
        chunk: tokens whose logits each device has in memory at a time; 0: `lm.train.loss.default_chunk`.
        parameters: of the model.
        batch: rows.
        across: attention crosses documents.
        stream: see `lm.model.decoder.Decoder`.
    """
    count = jnp.maximum(jnp.sum(batch.segments != PADDING).astype(jnp.float32), 1.0)

    def mean(parameters: Parameters, part: Batch) -> Array:
        return loss_sum(model, chunk, parameters, part, across, stream)[0] / count

    one = jax.value_and_grad(mean)
    if len(batch.inputs) == 1:
        return one(parameters, jax.tree.map(lambda array: array[0], batch))

    def add(carry: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, one(parameters, part)), None

    start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters))
    return jax.lax.scan(add, start, batch)[0]


def state_shardings(model: ModelConfig, config: TrainConfig, mesh: Mesh) -> State:
    """Return where the state lives: moments with their parameters, counts everywhere."""
    parameters = shardings(model, mesh)
    transform = optimizer(model, config)
    shapes = jax.eval_shape(lambda: transform.init(starting_arrays(model, 0)))
    whole = replicated(mesh)
    moments = optax.tree.map_params(
        transform, lambda _, place: place, shapes, parameters, transform_non_params=lambda _: whole
    )
    return State(whole, parameters, moments)


def _begin(model: ModelConfig, config: TrainConfig, parameters: Parameters) -> State:
    return State(jnp.zeros((), jnp.int32), parameters, optimizer(model, config).init(parameters))


def _recipe(config: TrainConfig) -> TrainConfig:
    """Return a configuration with the fields that no compiled function reads set alike."""
    return dataclasses.replace(config, seed=0, save_every=1, keep=1, data=1, fsdp=1, tensor=1)


@functools.cache  # by value: runs that differ in their data and seed only share what was compiled
def _compiled(model: ModelConfig, config: TrainConfig, mesh: Mesh) -> tuple[Callable[..., Any], ...]:
    transform, rate = optimizer(model, config), learning_rate(config)
    places, whole = state_shardings(model, config, mesh), replicated(mesh)
    stream = stream_sharding(mesh)

    def given(parameters: Parameters) -> State:
        return _begin(model, config, parameters)

    def random(seed: Array) -> State:
        return _begin(model, config, starting_arrays(model, seed))

    def update(state: State, batch: Batch, stop: Array) -> tuple[State, Measures]:
        loss, slope = gradient(model, config.loss_chunk, state.parameters, batch, config.across, stream)
        squares = {name: jnp.sum(jnp.square(leaf)) for name, leaf in slope.items()}
        changes, moments = transform.update(slope, state.optimizer, state.parameters)
        measures = Measures(
            loss,
            jnp.sqrt(sum(squares.values())),
            jnp.asarray(rate(state.done), jnp.float32),
            jnp.sum(batch.segments != PADDING),
            squares,
            jnp.sum(stop),
        )
        parameters: Any = optax.apply_updates(state.parameters, changes)
        return State(state.done + 1, parameters, moments), measures

    rows = batch_sharding(mesh)
    return (
        jax.jit(random, out_shardings=places),
        jax.jit(given, in_shardings=(places.parameters,), out_shardings=places),
        jax.jit(
            update,
            donate_argnums=0,
            in_shardings=(places, Batch(rows, rows, rows), stop_sharding(mesh)),
            out_shardings=(places, whole),
        ),
    )


def start(model: ModelConfig, config: TrainConfig, mesh: Mesh, parameters: Mapping[str, Array] | None = None) -> State:
    """Return the state before the first update: random weights by the seed, or given ones, and no moments."""
    random, given, _ = _compiled(model, _recipe(config), mesh)
    if parameters is None:
        return random(jnp.asarray(config.seed, jnp.uint32))
    return given({name: jax.device_put(parameters[name], place) for name, place in shardings(model, mesh).items()})


def updater(
    model: ModelConfig, config: TrainConfig, mesh: Mesh
) -> Callable[[State, Batch, Array], tuple[State, Measures]]:
    """Return the compiled update of a state, a batch and the processes' stop flags; the given state is used up."""
    return _compiled(model, _recipe(config), mesh)[2]


def abstract_state(model: ModelConfig, config: TrainConfig, mesh: Mesh) -> State:
    """Return shapes, types and places of the state: what a checkpoint is restored into."""
    return jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        jax.eval_shape(lambda: _begin(model, config, starting_arrays(model, 0))),
        state_shardings(model, config, mesh),
    )


def _mixed(bits: Array) -> Array:
    """Return other bits for each uint32, one for one (the finaliser of MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


@functools.partial(jax.jit, static_argnames="mixed")
def checksums(state: State, mixed: bool = True) -> Array:
    """Return a number for each array of the state, modulo 2^32, the same on every mesh.

    It is a sum over all values of their bits and places, mixed: any change of one value changes it, and any other
    change (an exchange, a shift) but for one in about 2^32.

    Args:
        state: whose arrays have values of 32 bits.
        mixed: False for the sum of earlier checkpoints, bits times odd numbers of their places, which an exchange of
            such values as x and -x leaves as it is.
    """

    def one(array: Array) -> Array:
        bits, place, stride = jax.lax.bitcast_convert_type(array, jnp.uint32), jnp.uint32(0), 1
        for axis in reversed(range(array.ndim)):
            # Counted without flattening, which would bring the parts of all devices together.
            place = place + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride)
            stride *= array.shape[axis]
        term = _mixed(bits + place * jnp.uint32(0x9E3779B9)) if mixed else bits * (2 * place + 1)
        return jnp.sum(term, dtype=jnp.uint32)

    return jnp.stack([one(array) for array in jax.tree.leaves(state)])
