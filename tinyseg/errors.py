"""Every exception that tinyseg raises on purpose.

    TinysegError
    ├── InputError (also ValueError)     what the caller handed in
    │   ├── FrameError                   a frame of the wrong shape, dtype or colour order
    │   ├── PromptError                  a prompt that cannot be understood
    │   └── DataError                    an image file, data set or result file that cannot be read or written
    ├── ModelError                       a model that is missing, damaged or of another format
    ├── EngineError (also RuntimeError)  an engine that cannot do what it was asked
    │   ├── EngineNotInstalled           its package is missing
    │   ├── UnknownEngine                there is no such engine
    │   ├── PrecisionUnavailable         this engine, device or model does not offer the precision
    │   ├── ParityError                  a compiled graph's masks differ from the fp32 reference's
    │   ├── WrongDevice                  a compiled folder was made for another device or engine version
    │   └── CacheError                   the cache of built engines cannot be used
    ├── NotInstalled                     an optional package is missing (EngineNotInstalled is one)
    ├── NativeModuleError                the compiled pixel core is missing
    └── NotReadyError (also RuntimeError)  a call that needs another one first

Messages say what was given, what was expected and what to do. Errors of vendors are wrapped (``raise ... from``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CacheError",
    "DataError",
    "EngineError",
    "EngineNotInstalled",
    "FrameError",
    "InputError",
    "ModelError",
    "NativeModuleError",
    "NotInstalled",
    "NotReadyError",
    "ParityError",
    "PrecisionUnavailable",
    "PromptError",
    "TinysegError",
    "UnknownEngine",
    "WrongDevice",
]


class TinysegError(Exception):
    """Base of all exceptions that tinyseg raises on purpose."""


class InputError(TinysegError, ValueError):
    """Something that the caller handed in cannot be used."""


class FrameError(InputError):
    """A frame of the wrong shape, dtype or colour order."""


class PromptError(InputError):
    """A prompt that cannot be understood."""


class DataError(InputError):
    """An image file, a data set or a result file that cannot be read or written."""


class ModelError(TinysegError):
    """A model that is missing, damaged or of another format."""


class EngineError(TinysegError, RuntimeError):
    """An engine that cannot do what it was asked."""


class NotInstalled(TinysegError):
    """An optional package is missing; the message names the command that installs it."""


class EngineNotInstalled(EngineError, NotInstalled):
    """The engine's package is missing."""


class UnknownEngine(EngineError):
    """There is no engine of that name."""


class PrecisionUnavailable(EngineError):
    """This engine, device or model does not offer the precision."""


class ParityError(EngineError):
    """A compiled graph's masks differ from the fp32 reference's by more than its precision allows."""


class WrongDevice(EngineError):
    """A compiled folder was made for another device, engine version or setting."""


class CacheError(EngineError):
    """The cache of built engines cannot be used."""


class NativeModuleError(TinysegError):
    """The compiled pixel core is missing or does not load."""


class NotReadyError(TinysegError, RuntimeError):
    """A call that needs another one first."""


@contextmanager
def engine_errors(engine: str, doing: str) -> Iterator[None]:
    """Turn whatever an engine's library raises into one EngineError that says what was being done."""
    try:
        yield
    except TinysegError:
        raise
    except Exception as exc:
        first_line = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise EngineError(f"{engine} failed while {doing}: {first_line}") from exc
