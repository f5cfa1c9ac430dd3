"""A Label Studio ML backend on tinyseg: smart clicks and boxes become brush labels, on a CPU.

pip install tinyseg label-studio-ml label-studio-sdk
label-studio-ml start examples/label_studio        # then connect it in the project's settings, "interactive" on
"""

from __future__ import annotations

from typing import Any

from answers import prediction_of, prompt_of
from label_studio_ml.model import LabelStudioMLBase

import tinyseg
from tinyseg.images import read_image

SEGMENTER = tinyseg.load()


class TinysegBackend(LabelStudioMLBase):
    def setup(self) -> None:
        self.set("model_version", f"tinyseg-{tinyseg.__version__}")

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        from_name, to_name, value = self.get_first_tag_occurence("BrushLabels", "Image")
        if not context or not context.get("result"):
            return []  # nobody has pointed at anything yet
        prompt, label = prompt_of(context)
        path = self.get_local_path(tasks[0]["data"][value], task_id=tasks[0].get("id"))
        masks = SEGMENTER.embed(read_image(path)).predict(**prompt, multimask=False)
        return [
            prediction_of(masks.masks[0], float(masks.scores[0]), label, from_name, to_name, self.get("model_version"))
        ]
