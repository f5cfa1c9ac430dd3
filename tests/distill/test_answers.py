from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill import answers  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.answers import StoredAnswers, answers_key, store_answers  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.distill.losses import DistilWeights  # noqa: E402
from tinyseg.distill.step_inputs import open_batches, step_inputs  # noqa: E402
from tinyseg.distill.teachers import StudentTeacher  # noqa: E402
from tinyseg.distill.teaching import Teaching, open_teaching  # noqa: E402
from tinyseg.distill.train import train  # noqa: E402
from tinyseg.errors import DataError, InputError  # noqa: E402
from tinyseg.graphs.model import PACKAGED  # noqa: E402

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_samples")


@pytest.fixture
def config(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(answers, "SHARD", 2)
    return TrainConfig(
        data=(str(shapes),), out=str(tmp_path / "run"), batch_size=2, instances=2, workers=0, validation_photos=1,
        start=str(PACKAGED), steps=6,
    )  # fmt: skip


def test_stored_answers_are_what_the_teacher_says(config: TrainConfig, tmp_path: Path) -> None:
    store = tmp_path / "store"
    size = store_answers(config, "tinyseg:packaged", 3, store, embeddings=True)
    batches, _ = open_batches(config)
    stored = StoredAnswers(store, answers_key(config, batches, CPU))
    assert stored.count == 4 and size == sum(p.stat().st_size for p in store.glob("*.npz"))  # whole shards
    asked = Teaching(StudentTeacher(PACKAGED, CPU), None)
    for number in (0, 3, 1):
        inputs = step_inputs(batches[number], config, CPU)
        encodings = asked.encode(inputs), stored.encode(number, CPU)
        expected, found = (encoded.answer(inputs.prompts) for encoded in encodings)
        torch.testing.assert_close(found.logits, expected.logits.clamp(-10, 10), atol=0.05, rtol=0)
        torch.testing.assert_close(found.iou, expected.iou, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.tokens, expected.tokens, atol=0.02, rtol=1e-2)
        torch.testing.assert_close(encodings[1].embedding, encodings[0].embedding, atol=0.02, rtol=1e-2)


def test_a_store_goes_on_where_it_stopped(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    real = answers.write_bytes

    def dies(path: Path, data: bytes) -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(answers, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        store_answers(config, "tinyseg:packaged", 6, tmp_path / "store", embeddings=False)
    monkeypatch.setattr(answers, "write_bytes", real)
    first = (tmp_path / "store" / "answers-00000.npz").stat().st_mtime_ns
    store_answers(config, "tinyseg:packaged", 6, tmp_path / "store", embeddings=False)
    assert (tmp_path / "store" / "answers-00000.npz").stat().st_mtime_ns == first
    assert "6 batches" in capsys.readouterr().out
    with pytest.raises(InputError, match="begun without --embeddings"):
        store_answers(config, "tinyseg:packaged", 8, tmp_path / "store", embeddings=True)


def test_training_learns_from_them_and_goes_round(config: TrainConfig, tmp_path: Path) -> None:
    """Three steps on two stored batches are what asking the teacher about batches 0, 1 and 0 would be."""
    store = str(tmp_path / "store")
    config = replace(config, steps=3)
    store_answers(config, "tinyseg:packaged", 2, Path(store), embeddings=True)
    learning = replace(config, answers=store, distil=DistilWeights(embedding=0.5, tokens=0.5))
    saved = torch.load(train(learning), weights_only=True)
    assert saved["step"] == 3 and saved["adapter"]
    plain = torch.load(train(replace(config, out=str(tmp_path / "plain"))), weights_only=True)
    name = "decoder.final_norm.weight"
    assert not torch.equal(saved["student"][name], plain["student"][name])


def test_answers_to_other_questions_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store_answers(config, "tinyseg:packaged", 2, store, embeddings=False)
    batches, _ = open_batches(config)
    for other, named in (({"seed": 9}, "seed"), ({"batch_size": 3}, "batch_size")):
        with pytest.raises(InputError, match=f"other questions: {named}"):
            open_teaching(replace(config, answers=str(store), **other), batches, CPU)
    with pytest.raises(InputError, match="no embeddings"):
        open_teaching(replace(config, answers=str(store), distil=DistilWeights(embedding=1.0)), batches, CPU)
    with pytest.raises(InputError, match="--teacher instead of --answers"):
        replace(config, answers=str(store), distil=DistilWeights(rounds=True))
    with pytest.raises(InputError, match="not both"):
        replace(config, answers=str(store), teacher="tinyseg:packaged")
    with pytest.raises(InputError, match="holds no stored answers"):
        StoredAnswers(tmp_path, {})
    key = answers_key(config, batches, CPU)
    shard, index = store / "answers-00000.npz", store / "answers.json"
    whole = shard.read_bytes()
    middle = whole.index(b"iou0")  # of the packed numbers before it
    for damaged in (b"junk", b"", whole[:-30], whole[: middle - 99] + bytes(60) + whole[middle - 39 :]):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match="delete it and run"):
            StoredAnswers(store, key).encode(0, CPU)
    for content in ("[]", '{"key": 1, "count": 1, "teacher": "", "channels": 0}', "{", "[" * 100_000):
        index.write_text(content)
        with pytest.raises(InputError, match="holds no stored answers"):
            StoredAnswers(store, key)
    index.unlink()  # shards of whatever questions are not taken for answers to these
    with pytest.raises(DataError, match=r"no answers\.json says to what"):
        store_answers(config, "tinyseg:packaged", 2, store, embeddings=False)
    for place in (shard, shard / "store"):
        with pytest.raises(DataError, match=r"is a file|cannot be made a folder"):
            store_answers(config, "tinyseg:packaged", 2, place, embeddings=False)


def test_what_a_first_shard_answers_is_written_before_it(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = answers.write_bytes

    def dies(path: Path, data: bytes) -> None:
        real(path, data)
        if path.suffix == ".npz":
            raise KeyboardInterrupt

    monkeypatch.setattr(answers, "write_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        store_answers(config, "tinyseg:packaged", 2, tmp_path / "store", embeddings=False)
    monkeypatch.setattr(answers, "write_bytes", real)
    with pytest.raises(InputError, match="other questions: seed"):
        store_answers(replace(config, seed=5), "tinyseg:packaged", 2, tmp_path / "store", embeddings=False)
    store_answers(config, "tinyseg:packaged", 2, tmp_path / "store", embeddings=False)


def test_the_command(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(shapes), "--batch-size", "1", "--instances", "2"]
    store, out = str(tmp_path / "store"), str(tmp_path / "run")
    assert main(["answers", *options, "--teacher", "tinyseg:packaged", "--steps", "1", "--out", store]) == 0
    assert "MB" in capsys.readouterr().out
    assert main(["train", *options, "--start", "base", "--answers", store, "--steps", "1", "--out", out]) == 0
    assert "stored answers of tinyseg:base" in capsys.readouterr().out
    assert (
        main(["train", *options, "--seed", "3", "--answers", store, "--steps", "1", "--out", str(tmp_path / "b")]) == 2
    )


def test_a_model_in_a_folder_of_the_same_name_is_another_teacher(config: TrainConfig, tmp_path: Path) -> None:
    from tinyseg.distill.label import LabelRule, label  # noqa: PLC0415
    from tinyseg.distill.teachers import load_teacher  # noqa: PLC0415

    places = [tmp_path / name / "model" for name in ("one", "moved", "other")]
    for place in places:
        shutil.copytree(PACKAGED, place)
    graph = onnx.load(places[2] / "decoder.onnx")
    graph.doc_string = "trained further"
    onnx.save(graph, places[2] / "decoder.onnx")
    names = [f"flip:tinyseg:{place}" for place in places]
    store, labels = tmp_path / "store", tmp_path / "labels"
    for name in names[:2]:
        store_answers(config, name, 2, store, embeddings=False)
        label(load_teacher(name, CPU), [], labels, LabelRule(grid=1))
    with pytest.raises(InputError, match="other questions: weights"):
        store_answers(config, names[2], 2, store, embeddings=False)
    with pytest.raises(DataError, match="another teacher"):
        label(load_teacher(names[2], CPU), [], labels, LabelRule(grid=1))
