"""Measuring: accuracy on labelled photos, speed, and rivals in the same run."""
