"""Compile programs for TPUs that are not here: `python tpu_worker.py PROGRAM`, with Google's compiler (libtpu).

Prints JSON: bytes of a chip's memory that the arguments and the temporary arrays take, and whether attention is the
kernel for TPUs.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from lm.evaluation import scoring
from lm.generation import decode
from lm.generation.sampling import SamplingConfig
from lm.model.decoder import make
from lm.model.parameters import is_matrix, parameters
from lm.model.presets import preset
from lm.model.sharding import batch_sharding, make_mesh, replicated, shardings, stream_sharding
from lm.train import step
from lm.train.config import TrainConfig


def mesh_of(chips, **sizes):
    """Return a mesh of chips such as "v5e:2x4"."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=chips).devices
    return make_mesh(**sizes, devices=devices)


def training(chips, name, rows, **sizes):
    """Compile an update of a model in bfloat16."""
    model, mesh = preset(name, compute="bfloat16"), mesh_of(chips, **sizes)
    config = TrainConfig(1000, batch=rows, learning_rate=1e-3, **sizes)
    array = jax.ShapeDtypeStruct((1, rows, model.context), jnp.int32, sharding=step.batch_sharding(mesh))
    stop = jax.ShapeDtypeStruct((mesh.size,), jnp.int32, sharding=step.stop_sharding(mesh))
    state, batch = step.abstract_state(model, config, mesh), step.Batch(array, array, array)
    update: Any = step.updater(model, config, mesh)
    return update.lower(state, batch, stop).compile()


def states(chips, name, rows, length, **sizes):
    """Compile what editing and scoring do with a block of rows of several documents."""
    model, mesh = preset(name, compute="bfloat16"), mesh_of(chips, **sizes)
    places, blocks, rest = shardings(model, mesh), {}, {}
    for key, one in parameters(model).items():
        dtype = "bfloat16" if key.startswith("blocks.") and is_matrix(key, model) else "float32"
        array = jax.ShapeDtypeStruct(one.shape, dtype, sharding=places[key])
        if key.startswith("blocks."):
            blocks[key.removeprefix("blocks.")] = array
        elif key != "unembedding":
            rest[key] = array
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=batch_sharding(mesh))
    return scoring._loop("tpu").lower(model, stream_sharding(mesh), None, rest, blocks, tokens, tokens).compile()


def sampling(chips, name, rows, limit):
    """Compile the loop that draws tokens."""
    model, place = preset(name, compute="bfloat16"), replicated(mesh_of(chips))
    weights = decode.prepare(make(model, 0))
    request = decode.Request(SamplingConfig(), limit, (0,), model.vocabulary)
    prompts, names = [[1, 2]] * rows, [str(number) for number in range(rows)]
    running = jax.eval_shape(lambda: decode.start(weights, prompts, names, request, 0, 32))
    given = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place),
        (weights, running, np.int32(0), np.int32(0), np.uint32(0)),
    )
    return decode._advance.lower(*given, request=request).compile()


PROGRAMS = {
    "gpt2-124m data": lambda: training("v5e:2x4", "gpt2-124m", 64, data=8),
    "gpt2-124m mixed": lambda: training("v5e:2x4", "gpt2-124m", 64, data=2, fsdp=2, tensor=2),
    "llama3-8b fsdp": lambda: training("v5p:2x2x4", "llama3-8b", 16, fsdp=16),
    "smollm2-135m states": lambda: states("v5e:2x4", "smollm2-135m", 512, 1024, data=8),
    "llama3-8b states": lambda: states("v5e:2x4", "llama3-8b", 8, 4096, fsdp=2, tensor=4),
    "smollm2-135m sampling": lambda: sampling("v5e:2x2", "smollm2-135m", 512, 512),
}

if __name__ == "__main__":
    jax.default_backend = lambda: "tpu"  # what the package chooses by
    made = PROGRAMS[sys.argv[1]]()
    memory = made.memory_analysis()
    found = {
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "kernel": "tpu_custom_call" in made.as_text(),
    }
    print(json.dumps(found))
