"""One line on the terminal that tells how far a long job is; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from tinyseg.system.console import is_watched

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on a terminal, keep a line on stderr with count, share, rate and time left."""
    watched = is_watched()  # standard error may be closed, which tqdm does not expect
    yield from tqdm(items, desc=what, total=total, dynamic_ncols=True, leave=True) if watched else items
