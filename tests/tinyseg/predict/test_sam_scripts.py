"""The call sequences of three example scripts, with nothing changed but the import and the model's name.

segment-anything's notebooks/predictor_example.ipynb, SAM 2's notebooks/image_predictor_example.ipynb, and samexporter's
samexporter/inference.py; the calls are theirs, the pictures ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou
from tinyseg import (
    ResizeLongestSide,
    SAM2ImagePredictor,
    SamPredictor,
    SegmentAnythingONNX,
    build_sam,
    build_sam2,
    sam_model_registry,
)
from tinyseg.predict.sam.model import as_sam

Scene = tuple[NDArray[np.uint8], NDArray[np.bool_]]
BOX = (95, 55, 245, 165)


@pytest.fixture(scope="module")
def sam(reference: tinyseg.Segmenter) -> tinyseg.Sam:
    """As a script makes it; ONNX Runtime fp32, so that every machine computes the same."""
    return as_sam(reference)


def test_segment_anythings_predictor_example(sam: tinyseg.Sam, scene: Scene) -> None:
    torch = pytest.importorskip("torch", reason="the example uses torch")
    image, truth = cv2.cvtColor(scene[0], cv2.COLOR_BGR2RGB), scene[1]
    device = "cpu"
    sam.to(device=device)
    predictor = SamPredictor(sam)
    predictor.set_image(image)

    input_point, input_label = np.array([[170, 110]]), np.array([1])
    masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
    assert masks.shape == (3, *image.shape[:2]) and len(scores) == 3
    assert mask_iou(masks[np.argmax(scores)], truth) > 0.85

    input_point, input_label = np.array([[150, 110], [200, 120]]), np.array([1, 1])
    mask_input = logits[np.argmax(scores), :, :]
    masks, _, _ = predictor.predict(
        point_coords=input_point, point_labels=input_label, mask_input=mask_input[None, :, :], multimask_output=False
    )
    assert masks.shape == (1, *image.shape[:2])

    input_box = np.array(BOX)
    masks, _, _ = predictor.predict(
        point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
    )
    assert mask_iou(masks[0], truth) > 0.85
    masks, _, _ = predictor.predict(
        point_coords=np.array([[100, 60]]), point_labels=np.array([0]), box=input_box, multimask_output=False
    )
    assert mask_iou(masks[0], truth) > 0.85

    input_boxes = torch.tensor([BOX, (20, 20, 80, 80), (100, 60, 180, 160)], device=predictor.device)
    transformed_boxes = predictor.transform.apply_boxes_torch(input_boxes, image.shape[:2])
    masks, scores, low = predictor.predict_torch(
        point_coords=None, point_labels=None, boxes=transformed_boxes, multimask_output=False
    )
    assert tuple(masks.shape) == (3, 1, *image.shape[:2]) and masks.dtype == torch.bool
    assert tuple(scores.shape) == (3, 1) and tuple(low.shape) == (3, 1, 256, 256)
    assert mask_iou(masks[0][0].cpu().numpy(), truth) > 0.85

    resize_transform = ResizeLongestSide(sam.image_encoder.img_size)

    def prepare_image(image: NDArray[np.uint8], transform: ResizeLongestSide, device: tinyseg.Sam) -> object:
        image = transform.apply_image(image)
        tensor = torch.as_tensor(image, device=device.device)
        return tensor.permute(2, 0, 1).contiguous()

    mirrored = np.ascontiguousarray(image[:, ::-1])
    batched_input = [
        {
            "image": prepare_image(one, resize_transform, sam),
            "boxes": resize_transform.apply_boxes_torch(boxes, one.shape[:2]),
            "original_size": one.shape[:2],
        }
        for one, boxes in (
            (image, torch.tensor([BOX, (20, 20, 80, 80)])),
            (mirrored, torch.tensor([(75, 55, 225, 165)])),
        )
    ]
    batched_output = sam(batched_input, multimask_output=False)
    assert batched_output[0].keys() == {"masks", "iou_predictions", "low_res_logits"}
    assert tuple(batched_output[0]["masks"].shape) == (2, 1, *image.shape[:2])
    assert mask_iou(batched_output[0]["masks"][0, 0].numpy(), truth) > 0.85
    assert mask_iou(batched_output[1]["masks"][0, 0].numpy(), truth[:, ::-1]) > 0.85


def test_sam2s_image_predictor_example(sam: tinyseg.Sam, scene: Scene) -> None:
    image, truth = cv2.cvtColor(scene[0], cv2.COLOR_BGR2RGB), scene[1]
    predictor = SAM2ImagePredictor(sam)
    predictor.set_image(image)
    input_point, input_label = np.array([[170, 110]]), np.array([1])
    masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
    sorted_ind = np.argsort(scores)[::-1]
    masks, scores, logits = masks[sorted_ind], scores[sorted_ind], logits[sorted_ind]
    assert masks.shape == (3, *image.shape[:2]) and logits.shape == (3, 256, 256)
    assert mask_iou(masks[0], truth) > 0.85
    mask_input = logits[np.argmax(scores), :, :]
    masks, scores, _ = predictor.predict(
        point_coords=np.array([[150, 110], [200, 120]]),
        point_labels=np.array([1, 1]),
        mask_input=mask_input[None, :, :],
        multimask_output=False,
    )
    assert mask_iou(masks[0], truth) > 0.85
    masks, scores, _ = predictor.predict(
        point_coords=None, point_labels=None, box=np.array(BOX)[None, :], multimask_output=False
    )
    assert masks.shape == (1, *image.shape[:2]) and scores.shape == (1,)
    input_boxes = np.array([BOX, (20, 20, 80, 80), (100, 60, 180, 160)])
    masks, scores, _ = predictor.predict(point_coords=None, point_labels=None, box=input_boxes, multimask_output=False)
    assert masks.shape == (3, 1, *image.shape[:2]) and scores.shape == (3, 1)

    portrait = np.ascontiguousarray(image.transpose(1, 0, 2))
    img_batch, boxes_batch = [image, portrait], [np.array([BOX]), np.array([(55, 95, 165, 245), (10, 10, 60, 60)])]
    predictor.set_image_batch(img_batch)
    masks_batch, scores_batch, _ = predictor.predict_batch(None, None, box_batch=boxes_batch, multimask_output=False)
    assert [m.shape for m in masks_batch] == [(1, 240, 320), (2, 1, 320, 240)]
    assert [s.shape for s in scores_batch] == [(1,), (2, 1)]
    assert mask_iou(masks_batch[1][0, 0], truth.T) > 0.85
    pts_batch = [np.array([[[170, 110]], [[20, 20]]]), np.array([[[110, 170]], [[20, 20]]])]
    labels_batch = [np.array([[1], [1]])] * 2
    masks_batch, scores_batch, _ = predictor.predict_batch(
        pts_batch, labels_batch, box_batch=None, multimask_output=True
    )
    for masks, scores in zip(masks_batch, scores_batch):
        assert masks.shape[:2] == (2, 3) and scores.shape == (2, 3)
        best = masks[range(len(masks)), np.argmax(scores, axis=-1)]
        assert best.shape == (2, *masks.shape[2:])


def test_samexporters_example(sam: tinyseg.Sam, scene: Scene) -> None:
    image, truth = scene  # BGR, as cv2.imread gives it
    model = SegmentAnythingONNX(model=sam.segmenter)
    embedding = model.encode(image)
    for prompt in (
        [{"type": "point", "data": [170, 110], "label": 1}, {"type": "point", "data": [20, 20], "label": 0}],
        [{"type": "rectangle", "data": list(BOX)}],
        [{"type": "rectangle", "data": list(BOX)}, {"type": "point", "data": [170, 110], "label": 1}],
    ):
        masks = model.predict_masks(embedding, prompt)
        assert masks.shape == (1, 1, *image.shape[:2]) and masks.dtype == np.float32
        mask = np.zeros((masks.shape[2], masks.shape[3], 3), dtype=np.uint8)
        for m in masks[0, :, :, :]:
            mask[m > 0.0] = [255, 0, 0]
        assert mask_iou(mask[..., 0] > 0, truth) > 0.85


def test_samexporter_files_are_a_tinyseg_folder(tmp_path: Path, root: Path) -> None:
    folder = root / "tinyseg" / "models" / "small"
    assert SegmentAnythingONNX(folder / "encoder.onnx", folder / "decoder.onnx").segmenter.model.path == folder
    with pytest.raises(tinyseg.ModelError, match="samexporter wrote for SAM"):
        SegmentAnythingONNX(tmp_path / "sam.encoder.onnx", tmp_path / "sam.decoder.onnx")
    with pytest.raises(tinyseg.ModelError, match="both graphs"):
        SegmentAnythingONNX(folder / "encoder.onnx")
    with pytest.raises(tinyseg.ModelError, match="twice"):
        SegmentAnythingONNX(folder / "encoder.onnx", model=tinyseg.load(engine="fake"))


def test_the_registry_builds_what_ships() -> None:
    predictor = SamPredictor(sam_model=sam_model_registry["base"](checkpoint=None).to("cpu").eval())
    assert predictor.model.segmenter.model.name == "tinyseg-base"
    assert sam_model_registry["small"]().segmenter.model.name == "tinyseg-small"
    assert set(sam_model_registry) == {"default", *tinyseg.graphs.model.packaged_models()}
    assert build_sam().segmenter.model.name == "tinyseg-base"
    assert build_sam2("small", device="cpu").segmenter.model.name == "tinyseg-small"
    with pytest.raises(tinyseg.ModelError, match=r"vit_h.*base, small"):
        sam_model_registry["vit_h"]
    with pytest.raises(tinyseg.ModelError, match="PyTorch checkpoint"):
        sam_model_registry["base"](checkpoint="sam_vit_b_01ec64.pth")
    with pytest.raises(tinyseg.ModelError, match="configures SAM 2"):
        build_sam2("configs/sam2.1/sam2.1_hiera_l.yaml", "sam2.1_hiera_large.pt")
    with pytest.raises(tinyseg.InputError, match="sam_model_registry"):
        SamPredictor(sam_model=object())  # type: ignore[arg-type]


def test_a_device_that_is_not_ours_warns() -> None:
    sam = as_sam(tinyseg.load(engine="fake"))
    with pytest.warns(UserWarning, match="engine stays"):
        assert sam.to("cuda:0") is sam
    assert sam.device == "cuda:0"


def test_labels_2_3_and_padding_are_sams(sam: tinyseg.Sam, scene: Scene) -> None:
    predictor = SamPredictor(sam, zoom="off")
    predictor.set_image(scene[0], "BGR")
    by_box = predictor.predict(box=np.array(BOX), multimask_output=False)[0]
    corners, labels = np.array([[95, 55], [245, 165], [0, 0]]), np.array([2, 3, -1])
    assert np.array_equal(predictor.predict(corners, labels, multimask_output=False)[0], by_box)
    with pytest.raises(tinyseg.PromptError, match="-1, 0, 1, 2 and 3"):
        predictor.predict(np.array([[5, 5]]), np.array([4]))
    with pytest.raises(tinyseg.PromptError, match="one box"):
        predictor.predict(corners, labels, box=np.array(BOX))
    with pytest.raises(tinyseg.PromptError, match="one box"):
        predictor.predict(np.array([[5, 5]]), np.array([2]))
    with pytest.raises(tinyseg.PromptError, match="empty"):
        predictor.predict(np.array([[0, 0]]), np.array([-1]))
    with pytest.raises(tinyseg.PromptError, match="without point_labels"):
        predictor.predict(np.array([[0, 0]]))


def test_points_outside_count_at_the_edge(fake: tinyseg.Segmenter, scene: Scene) -> None:
    predictor = SamPredictor(fake)
    predictor.set_image(scene[0], "BGR")
    outside = predictor.predict(np.array([[-40.0, 900.0]]), np.array([1]))[2]
    assert np.array_equal(outside, predictor.predict(np.array([[0.0, 240.0]]), np.array([1]))[2])
    with pytest.raises(tinyseg.PromptError, match="outside"):
        fake.embed(scene[0]).predict(points=[[-40, 900]], labels=[1])


def test_features_sizes_and_threshold(sam: tinyseg.Sam, scene: Scene) -> None:
    predictor = SamPredictor(sam)
    assert predictor.features is None
    predictor.set_image(scene[0], "BGR")
    features = predictor.get_image_embedding()
    assert np.array_equal(features.detach().cpu().numpy(), predictor.features)
    assert type(features.numpy()) is np.ndarray
    assert predictor.input_size == (768, 1024) and predictor.original_size == (240, 320)
    masks = predictor.predict(box=np.array(BOX), multimask_output=False)[0]
    stricter = as_sam(sam.segmenter)
    stricter.mask_threshold = 2.0
    other = SamPredictor(stricter)
    other.set_image(scene[0], "BGR")
    narrow = other.predict(box=np.array(BOX), multimask_output=False)[0]
    assert 0 < narrow.sum() < masks.sum() and not (narrow & ~masks).any()
    predictor.reset_image()
    assert predictor.features is None and not predictor.is_image_set


def test_set_torch_image(sam: tinyseg.Sam, scene: Scene) -> None:
    torch = pytest.importorskip("torch", reason="the call takes tensors")
    image = scene[0][..., ::-1]
    predictor = SamPredictor(sam)
    tensor = torch.as_tensor(predictor.transform.apply_image(image).copy()).permute(2, 0, 1)[None]
    predictor.set_torch_image(tensor, image.shape[:2])
    masks = predictor.predict(box=np.array(BOX), multimask_output=False)[0]
    assert mask_iou(masks[0], scene[1]) > 0.85
    scaled = predictor.transform.apply_image_torch(torch.zeros(1, 3, 240, 320))
    assert tuple(scaled.shape) == (1, 3, 768, 1024)
    points = predictor.transform.apply_coords_torch(torch.tensor([[[170, 110]]]), image.shape[:2])
    assert np.allclose(points, predictor.transform.apply_coords(np.array([[[170, 110]]]), image.shape[:2]))
    masks, scores, _ = predictor.predict_torch(points, torch.tensor([[1]]), return_logits=True)
    assert tuple(masks.shape) == (1, 3, 240, 320) and masks.dtype == torch.float32
    assert mask_iou(masks[0, int(scores.argmax())].numpy() > 0, scene[1]) > 0.85
    with pytest.raises(tinyseg.FrameError, match="1024"):
        predictor.set_torch_image(torch.zeros(1, 3, 240, 320), (240, 320))
    with pytest.raises(tinyseg.FrameError, match="height, width"):
        predictor.set_torch_image(tensor, (320, 240))
    with pytest.raises(tinyseg.PromptError, match="one first dimension"):
        predictor.predict_torch(points, torch.tensor([[1], [1]]))


def test_sam2_coordinates_in_the_unit_square(fake: tinyseg.Segmenter, scene: Scene) -> None:
    predictor = SAM2ImagePredictor(fake)
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    predictor.set_image(pil.fromarray(scene[0][..., ::-1].copy()))
    unit = predictor.predict(box=np.array([0.25, 0.25, 0.75, 0.75]), multimask_output=False, normalize_coords=False)
    pixels = predictor.predict(box=np.array([80, 60, 240, 180]), multimask_output=False)
    assert np.array_equal(unit[0], pixels[0])


def test_sam2_wrong_use_is_told(fake: tinyseg.Segmenter, scene: Scene) -> None:
    predictor = SAM2ImagePredictor(fake)
    with pytest.raises(tinyseg.NotReadyError, match="set_image"):
        predictor.predict(box=np.array(BOX))
    with pytest.raises(tinyseg.FrameError, match="at least one"):
        predictor.set_image_batch([])
    predictor.set_image(scene[0])
    with pytest.raises(tinyseg.NotReadyError, match="set_image_batch"):
        predictor.predict_batch(box_batch=[np.array(BOX)])
    predictor.set_image_batch([scene[0], scene[0]])
    with pytest.raises(tinyseg.NotReadyError, match="predict_batch"):
        predictor.predict(box=np.array(BOX))
    with pytest.raises(tinyseg.PromptError, match="2 images"):
        predictor.predict_batch(box_batch=[np.array(BOX)])
    with pytest.raises(tinyseg.PromptError, match="number of objects"):
        predictor.predict_batch([np.array([[5, 5]])] * 2, [np.array([1])] * 2, box_batch=[np.array([BOX, BOX])] * 2)
    with pytest.raises(tinyseg.InputError, match="specks"):
        SAM2ImagePredictor(fake, max_hole_area=8.0)
    with pytest.raises(tinyseg.ModelError, match="no model at"):
        SAM2ImagePredictor.from_pretrained("facebook/sam2-hiera-large")


def test_no_script_call_imports_torch_by_itself() -> None:
    code = (
        "import sys, numpy, tinyseg; p = tinyseg.SamPredictor(tinyseg.load(engine='fake'));"
        "p.set_image(numpy.zeros((40, 60, 3), numpy.uint8)); p.predict(box=numpy.array([5, 5, 30, 30]));"
        "p.get_image_embedding(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
