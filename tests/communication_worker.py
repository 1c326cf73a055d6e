"""What four devices send each other in compiled programs, in a process that has them: `python communication_worker.py`.

Prints JSON: bytes that a device receives, by program, mesh and rows of a batch.
"""

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
from families import LLAMA

from lm.evaluation import scoring
from lm.model.decoder import Decoder, starting_arrays
from lm.model.sharding import make_mesh, shardings, stream_sharding
from lm.train import step
from lm.train.config import TrainConfig

MODEL = LLAMA.changed(vocabulary=512, context=128, width=64, heads=4, kv_heads=2, head_size=16, hidden=128, layers=2)
MESHES = {"data": {"data": 4}, "fsdp": {"fsdp": 4}, "fsdp and tensor": {"fsdp": 2, "tensor": 2}}
ROWS = 8, 80  # a chunk of the loss for each device, and several, which the usual size would not cut evenly
_SENT = re.compile(r"= (.+?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_ARRAY = re.compile(r"(f32|bf16|s32|u32|pred)\[([\d,]*)\]")
_SIZE = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def received(program):
    """Return the bytes of all results of communication in a compiled program; a loop's body counts once."""
    total = 0
    for result in _SENT.findall(program.as_text()):
        for kind, sizes in _ARRAY.findall(result):
            elements = 1
            for size in filter(None, sizes.split(",")):
                elements *= int(size)
            total += elements * _SIZE[kind]
    return total


def training(sizes, rows):
    """Return what an update sends."""
    mesh, config = make_mesh(**sizes), TrainConfig(100, batch=rows, learning_rate=1e-3, **sizes)
    place = step.batch_sharding(mesh)
    array = jax.ShapeDtypeStruct((1, rows, MODEL.context), jnp.int32, sharding=place)
    stop = jax.ShapeDtypeStruct((mesh.size,), jnp.int32, sharding=step.stop_sharding(mesh))
    update: Any = step.updater(MODEL, config, mesh)
    state = step.abstract_state(MODEL, config, mesh)
    return received(update.lower(state, step.Batch(array, array, array), stop).compile())


def scoring_block(sizes, rows):
    """Return what a block of a model that scores sends, times the number of blocks."""
    mesh = make_mesh(**sizes)
    arrays = {name: jax.device_put(x, shardings(MODEL, mesh)[name]) for name, x in starting_arrays(MODEL, 0).items()}
    scorer = scoring.prepare(Decoder(MODEL, arrays, stream_sharding(mesh)))
    stream = jax.ShapeDtypeStruct((rows * MODEL.context, MODEL.width), jnp.float32, sharding=scorer.stream)
    segments = jax.ShapeDtypeStruct((rows, MODEL.context), jnp.int32, sharding=scorer.stream)
    angles = jax.eval_shape(lambda: Decoder(MODEL, arrays).angles(jnp.zeros((rows, MODEL.context), jnp.int32)))
    block = scoring._through_block.lower(
        MODEL, scorer.stream, scorer.blocks[0], stream, angles, segments, shape=segments.shape
    )
    return received(block.compile()) * len(scorer.blocks)


if __name__ == "__main__":
    made = {
        program.__name__: {name: [program(sizes, rows) for rows in ROWS] for name, sizes in MESHES.items()}
        for program in (training, scoring_block)
    }
    print(json.dumps(made))
