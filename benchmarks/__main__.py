"""Runs every benchmark module of this folder: `python -m benchmarks`."""

import importlib
import pkgutil

import benchmarks


def main() -> None:
    """Runs `main` of each module, in the order of their names."""
    for module in sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__)):
        if not module.startswith("_"):
            print(f"\n== {module} ==", flush=True)
            importlib.import_module(f"benchmarks.{module}").main()


if __name__ == "__main__":
    main()
