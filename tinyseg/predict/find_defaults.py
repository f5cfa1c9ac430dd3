"""How many of the same thing are found, and how alike they have to be, where nobody says otherwise."""

from __future__ import annotations

MAX_FOUND = 256
THRESHOLD = 0.4  # likeness, in [0, 1]
