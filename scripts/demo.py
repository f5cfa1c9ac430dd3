"""The main job once: load, embed a photograph, prompt it, draw what came out, and say how long it took."""

from __future__ import annotations

import time
from pathlib import Path

import tinyseg
from tinyseg import Prompt
from tinyseg.draw import overlay
from tinyseg.images import read_image, write_image

ROOT = Path(__file__).parent.parent
PROMPTS = [
    # The astronaut: a box, a click on her, two beside her on the flag.
    Prompt(points=[[215, 330], [40, 100], [40, 190]], labels=[1, 0, 0], box=[30, 14, 370, 512]),
    Prompt(box=[352, 2, 458, 268]),  # the shuttle behind her
]
ROUNDS = 20


def median_ms(samples: list[float]) -> float:
    return 1e3 * sorted(samples)[len(samples) // 2]


def main() -> None:
    photo = read_image(ROOT / "examples" / "astronaut.jpg")
    start = time.perf_counter()
    seg = tinyseg.load()
    answers = [seg.embed(photo).predict(p.points, p.labels, p.box, multimask=False) for p in PROMPTS]
    first = time.perf_counter() - start

    embedding, prompting = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        emb = seg.embed(photo)
        middle = time.perf_counter()
        emb.predict(PROMPTS[0].points, PROMPTS[0].labels, PROMPTS[0].box, multimask=False)
        embedding.append(middle - start)
        prompting.append(time.perf_counter() - middle)

    picture = ROOT / "demo-output" / "astronaut.png"
    write_image(picture, overlay(photo, [a.masks[0] for a in answers], PROMPTS))
    print(seg.info)
    for prompt, answer in zip(PROMPTS, answers):
        print(f"box {prompt.box}: {answer.areas[0]} pixels, predicted IoU {answer.scores[0]:.2f}")
    print(
        f"{photo.shape[1]}x{photo.shape[0]} photo: embedding {median_ms(embedding):.1f} ms, "
        f"one prompt with its full-resolution mask {median_ms(prompting):.1f} ms (medians of {ROUNDS}); "
        f"load to first masks {first:.2f} s"
    )
    print(f"open {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
