"""Edit the files of FOLDER/in to FOLDER/out by Ray's cluster at ADDRESS: `python ray_worker.py FOLDER ADDRESS`."""

import pathlib
import sys
import warnings

from edit_worker import CONTEXT, EDIT

from lm.editing.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the packages' own imports
    import ray  # pyright: ignore[reportMissingImports]
    from datatrove.executor import RayPipelineExecutor  # pyright: ignore[reportMissingImports]

    from lm.editing.pipeline import EditFiles

SETTINGS = Settings(EDIT, chunk=2000)

if __name__ == "__main__":
    folder, address = pathlib.Path(sys.argv[1]), sys.argv[2]
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    step = EditFiles([str(folder / "in")], str(folder / "out"), "tiny", SETTINGS, context=CONTEXT)
    RayPipelineExecutor([step], tasks=2, logging_dir=str(folder / "logs"), mem_per_cpu_gb=1).run()
