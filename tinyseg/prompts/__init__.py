"""What a user points with: one :class:`Prompt`, and how a decoder takes it (``layout``)."""

from tinyseg.prompts.prompt import Prompt

__all__ = ["Prompt"]
