"""What viewers may ask for, over HTTP and over the websocket alike: by name, with checked fields."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, is_dataclass
from typing import Any

from tinyseg.prompts import Prompt
from tinyseg.serve.limits import ACTION_SECONDS
from tinyseg.serve.live import Live, Unavailable
from tinyseg.serve.schemas import MESSAGES, check

Fields = Mapping[str, Any]


def prompt_of(fields: Fields) -> Prompt:
    """Raises PromptError."""
    return Prompt(fields.get("points"), fields.get("labels"), fields.get("box"))


ACTIONS: dict[str, Callable[[Live, Fields], Future[Any]]] = {
    "add": lambda live, f: live.add(prompt_of(f), f.get("frame"), f.get("name"), f.get("color")),
    "correct": lambda live, f: live.correct(f["object"], prompt_of(f), f.get("frame")),
    "edit": lambda live, f: live.edit(f["object"], f.get("name"), f.get("color")),
    "remove": lambda live, f: live.remove(f["object"]),
    "clear": lambda live, f: live.clear(),
    "play": lambda live, f: live.play(),
    "pause": lambda live, f: live.pause(),
    "step": lambda live, f: live.step(),
    "record": lambda live, f: live.record(),
    "stop_recording": lambda live, f: live.stop_recording(),
}


async def do(live: Live, name: str, fields: Fields) -> Any:
    """Do an action and return its result as JSON values. Raises InputError, and what the live thread raises."""
    check(dict(fields), MESSAGES[name])
    future = ACTIONS[name](live, {key: _whole(value) for key, value in fields.items()})
    try:
        result = await asyncio.wait_for(asyncio.wrap_future(future), ACTION_SECONDS)
    except asyncio.TimeoutError as exc:
        raise Unavailable(f"the source or the engine did not answer within {ACTION_SECONDS:.0f} s; ask again") from exc
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else result


def _whole(value: Any) -> Any:
    """JSON's 3.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
