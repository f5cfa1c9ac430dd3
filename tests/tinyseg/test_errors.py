from __future__ import annotations

import inspect

import tinyseg
from tinyseg import errors


def test_every_exception_is_exported_and_drawn() -> None:
    defined = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.TinysegError)}
    assert set(errors.__all__) == defined
    assert defined <= set(tinyseg.__all__)
    assert all(name in (errors.__doc__ or "") for name in defined)
    assert all(hasattr(tinyseg, name) for name in tinyseg.__all__)
