#!/usr/bin/env python3
"""Whether tinyseg works in this container: TensorRT gives the mask that the CPU gives.

python3 test.py [ENGINE]    tensorrt where nothing is said
"""

import sys

import numpy as np

import tinyseg

engine = sys.argv[1] if len(sys.argv) > 1 else "tensorrt"
rows, columns = np.mgrid[0:480, 0:640]
there = ((columns - 320) / 150) ** 2 + ((rows - 240) / 110) ** 2 < 1
frame = np.where(there[..., None], (40, 120, 220), (130, 90, 60)).astype(np.uint8)
masks = []
for name in ("onnxruntime", engine):
    seg = tinyseg.load(engine=name)
    masks.append(seg.embed(frame).predict(box=(165, 125, 475, 355), multimask=False).masks[0])
    print(seg.info)
union = np.count_nonzero(masks[0] | masks[1])
overlap = np.count_nonzero(masks[0] & masks[1]) / max(union, 1)
truth = np.count_nonzero(masks[1] & there) / np.count_nonzero(masks[1] | there)
print(f"IoU with the CPU's mask {overlap:.4f}, with the drawn ellipse {truth:.4f}")
if overlap < 0.98 or truth < 0.9:
    sys.exit(f"tinyseg FAILED: {engine} gives another mask")
print("tinyseg OK")
