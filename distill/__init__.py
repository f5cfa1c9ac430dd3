"""Training of the student: data, prompts, losses, the loop, evaluation during training and export.

Needs the ``train`` extra (torch). Nothing that a device runs imports this package.
"""
