"""Label Studio's own SDK judges what examples/label_studio answers; in the clients' environment (scripts/clients).

python check_label_studio.py EXAMPLE_FOLDER MASK.npy
"""

import sys

import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="cup"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="cup"/></KeyPointLabels></View>"""

sys.path.insert(0, sys.argv[1])
from answers import prediction_of  # noqa: E402

mask = np.load(sys.argv[2])
prediction = prediction_of(mask, 0.9, "cup", "tag", "image", "tinyseg")
errors = LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True)
assert not errors, errors
pixels = np.array(decode_rle(prediction["result"][0]["value"]["rle"])).reshape(*mask.shape, 4)
assert ((pixels[..., 3] > 0) == mask).all()
print("label studio: ok")
