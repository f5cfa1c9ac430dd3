from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.distill.data import TrainingBatches, cut_image, fill_instance, random_crop  # noqa: E402
from tinyseg.distill.device_data import (  # noqa: E402
    DeviceBatches,
    _sample,
    _to_canvas,
    device_gigabytes,
    jitter_colour,
    mask_boxes,
    sampling_grid,
)
from tinyseg.distill.train import train  # noqa: E402

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("small_samples")


@pytest.fixture(scope="module")
def resident(shapes: Path) -> DeviceBatches:
    return DeviceBatches(TrainingBatches(read_photos(shapes)[:6], 4, 3, 0, {}), CPU)


def test_cuts_what_the_workers_cut(resident: DeviceBatches) -> None:
    """The same crop through both paths: the picture nearly, the mask but for its edge."""
    photo = resident.source.photos[2]
    rng = np.random.default_rng(1)
    for zoom in (False, True, True):
        crop = random_crop(photo, 64, zoom, rng)
        grid = sampling_grid(_to_canvas(crop.matrix, 1.0)[None], 64, CPU)
        average = torch.nn.functional.avg_pool2d
        found = average(_sample(resident.images[2:3].float() - 127.5, grid), 2)[0].permute(1, 2, 0).numpy() + 127.5
        expected = cut_image(photo.read(), crop)[..., ::-1].astype(np.float32)
        assert np.median(np.abs(found - expected)) < 3 and np.abs(found - expected).mean() < 8
        mask = (
            average(_sample(resident.masks[resident.first[2] : resident.first[2] + 1][None].float(), grid), 2)[0, 0]
            > 0.5
        )
        truth = fill_instance(photo.instances[0], crop) > 0
        assert np.count_nonzero(mask.numpy() ^ truth) <= 0.1 * max(truth.sum(), 200)


def test_batches_are_functions_of_seed_and_step(resident: DeviceBatches) -> None:
    first, again, other = resident[5], resident[5], resident[6]
    assert first.image.shape == (4, 64, 64, 3) and first.image.dtype == torch.uint8
    assert first.coverage.shape == (4, 3, 16, 16) and first.boxes.shape == (4, 3, 4)
    assert torch.equal(first.image, again.image) and torch.equal(first.coverage, again.coverage)
    assert not torch.equal(first.image, other.image)
    x0, y0, x1, y1 = first.boxes.unbind(-1)
    assert (x0 < x1).all() and (y0 < y1).all() and first.boxes.max() <= 64 and first.boxes.min() >= 0
    assert (first.coverage.flatten(2).sum(2) > 0).all()


def test_boxes_of_masks() -> None:
    masks = torch.zeros(1, 2, 10, 10)
    masks[0, 0, 2:5, 3:9] = 1
    masks[0, 1, 9, 0] = 1
    assert mask_boxes(masks).tolist() == [[[3, 2, 9, 5], [0, 9, 1, 10]]]


def test_colour_changes_stay_in_range_and_differ_by_sample() -> None:
    images = torch.full((32, 3, 8, 8), 100.0)
    out = jitter_colour(images, torch.Generator().manual_seed(0))
    assert out.dtype == torch.uint8 and len(out[:, :, 0, 0].unique(dim=0)) > 16


def test_training_runs_on_it(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(
        data=(str(shapes),), out=str(tmp_path / "run"), steps=3, batch_size=2, instances=2, validation_photos=1,
        data_on_device=True,
    )  # fmt: skip
    assert torch.load(train(config), weights_only=True)["step"] == 3
    assert "GB of photos and masks" in capsys.readouterr().out
    assert device_gigabytes(read_photos(shapes)) == pytest.approx((3 * 24 + 48) * 512**2 / 1e9)
