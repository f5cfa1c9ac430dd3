"""From a frame and prompts to masks."""
