"""Measurements with torch and transformers, in a process of their own.

The interpreter that has them is named by the environment variable TOEDIT_PEERS_PYTHON; without it this one is tried.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lm.weights.load import fetch_smollm2


def measure(script: str, limit: float, **arrays: Any) -> dict[str, Any]:
    """Return what a script of this folder printed last; nothing where there is no torch.

    Args:
        script: name of the file; it is given the path of SmolLM2's weights and of the arrays.
        limit: seconds; what it has printed by then counts.
        **arrays: what it is to compute with.
    """
    python = os.environ.get("TOEDIT_PEERS_PYTHON")
    if python is None:
        if importlib.util.find_spec("torch") is None:
            return {}
        python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "ids.npz", **arrays)
        command = [python, str(Path(__file__).with_name(script)), str(fetch_smollm2()), f"{folder}/ids.npz"]
        try:
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit).stdout
        except subprocess.TimeoutExpired as late:
            out = (late.stdout or b"").decode()
    return json.loads(out.splitlines()[-1]) if out else {}
