"""The progress bar of work that tells its share done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def share_bar(first: str, *, shown: bool = True) -> Iterator[Callable[[float, str], None]]:
    """Show a bar with the time left; yield what is told of the share done, in [0, 1], and of what is done.

    Args:
        first: what is done before anything is told.
        shown: whether to show it at all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(first, total=1.0)
        yield lambda share, message: bar.update(task, completed=share, description=message)
