"""Runs the benchmarks of this folder: `python -m benchmarks` all of them, `python -m benchmarks NAME...` some."""

import importlib
import os
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Runs `main` of each module named, or of all, in the order of their names."""
    found = sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_"))
    unknown = [name for name in sys.argv[1:] if name not in found]
    if unknown:
        sys.exit(f"benchmarks: there is no benchmark {unknown[0]}; choose from {', '.join(found)}")
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # first passes are told with compilation
    for module in sys.argv[1:] or found:
        print(f"\n== {module} ==", flush=True)
        importlib.import_module(f"benchmarks.{module}").main()


if __name__ == "__main__":
    main()
