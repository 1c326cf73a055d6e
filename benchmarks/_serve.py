"""One side of a comparison in a process of its own: it measures a way of working when asked for it.

Only the standard library is needed, because other interpreters run this too.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(ways: Mapping[str, Callable[[], dict[str, Any]]], about: Mapping[str, Any]) -> None:
    """Print the names of the ways and what there is to say about them, then answer each line that names a way.

    Args:
        ways: what each name runs; it returns at least the `seconds` that it took.
        about: such as versions.
    """
    print(json.dumps({"ways": list(ways), **about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(ways[line.strip()]()), flush=True)
