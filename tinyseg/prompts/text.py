"""Words as prompts: what phrases a text names."""

from __future__ import annotations

from tinyseg.arguments import shown
from tinyseg.errors import PromptError

MOST_CHARACTERS = 2000


def phrases(text: str) -> tuple[str, ...]:
    """ "Dog. red cup" -> ("dog", "red cup"): lower case, in order, each once. Raises PromptError for a text without any."""
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise PromptError(f"text must be a string of at most {MOST_CHARACTERS} characters, but is {shown(text)}")
    parts = (" ".join(part.split()).lower() for part in text.replace("\n", ".").split("."))
    found = tuple(dict.fromkeys(p for p in parts if p))
    if not found:
        raise PromptError(f'text names nothing: {shown(text)}; separate phrases by full stops, as in "dog. red cup"')
    return found
