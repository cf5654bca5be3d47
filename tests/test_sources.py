"""Built-in sources, radiographs with an index, prepared data sets."""

from functools import partial

import numpy as np
import pytest

from configs import base
from medjax import registry
from medjax.data.sources.files import Files
from medjax.data.sources.labelled import Labelled
from medjax.data.sources.phantoms import Phantoms
from medjax.data.split import split
from medjax.train.run import load_records
from medjax.types import UserError


def test_icbm152_lies_as_its_affine_says():
    (record,) = registry.build("data.sources", registry.spec("data.sources", "icbm152")).load()
    assert record.image.shape == (189, 233, 197, 1)
    assert record.image.dtype == np.uint8
    np.testing.assert_array_equal(record.affine @ [72, 134, 98, 1], [0, 0, 0, 1])  # the anterior commissure


@pytest.mark.parametrize("kind", ["chest", "brain"])
@pytest.mark.parametrize("shape", [(48, 64), (24, 32, 32)])
def test_phantoms_are_the_same_again_and_each_its_own(kind, shape):
    records = Phantoms(kind=kind, shape=shape, count=3, seed=5).load()
    again = Phantoms(kind=kind, shape=shape, count=5, seed=5).load()
    for a, b in zip(records, again, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    assert len({r.subject for r in again}) == 5
    assert len({r.image.tobytes() for r in again}) == 5
    for record in records:
        assert record.image.shape == (*shape, 1)
        assert record.extras["mask"].shape == (*shape, 1)
        inside, outside = record.image[record.extras["mask"]], record.image[~record.extras["mask"]]
        if kind == "chest":
            assert outside.max() < -200
            assert (inside < -700).any()  # lung
            assert (inside > 200).any()  # bone
        else:
            assert 0 <= inside.min() <= inside.max() <= 1000


def test_phantoms_say_what_is_wrong():
    for given in ({"kind": "knee"}, {"shape": (4, 4)}, {"shape": (64,)}):
        with pytest.raises(UserError):
            Phantoms(**given).load()


def test_radiographs_load_as_grey_and_split_by_patient(test_data, tmp_path, caplog):
    few = tmp_path / "images"
    few.mkdir()
    for path in sorted((test_data / "xray" / "images").iterdir())[:20]:
        (few / path.name).symlink_to(path)
    (tmp_path / "index.csv").symlink_to(test_data / "xray" / "index.csv")
    records = Files(path=str(few), cache=str(tmp_path / "cache")).load()
    assert {r.image.shape[-1] for r in records} == {1}
    assert len({r.subject for r in records}) < len(records)
    assert "are in colour" in caplog.text or all(not r.id.startswith("41182") for r in records)


def test_images_beside_their_label_maps_are_chosen_by_name(tmp_path):
    for subject in ("sub-1", "sub-2"):
        (tmp_path / subject).mkdir()
        for kind in ("T1w", "label"):
            np.save(tmp_path / subject / f"{subject}_{kind}.npy", np.arange(64, dtype=np.float32).reshape(8, 8, 1))
    cache = str(tmp_path / "cache")
    assert len(Files(path=str(tmp_path), cache=cache).load()) == 4
    records = Files(path=str(tmp_path), cache=cache, match="*_T1w.npy").load()
    assert {(r.id, r.subject) for r in records} == {(f"sub-{i}/sub-{i}_T1w", f"sub-{i}") for i in (1, 2)}
    with pytest.raises(UserError, match=r"config.data.source.match: '\*_T2w.npy' is the name of no image"):
        Files(path=str(tmp_path), match="*_T2w.npy").load()


def test_a_path_goes_to_the_source_that_reads_files(tmp_path):
    for name in ("image", "label"):
        np.save(tmp_path / f"a_{name}.npy", np.eye(8, dtype=np.uint8)[..., None])
    config = base.get_config(source="pairs")
    config.data.source.update({"images": "*_image.npy", "labels": "*_label.npy"})
    config.data.path = str(tmp_path)
    assert [record.extras.keys() >= {"label"} for record in load_records(config)] == [True]
    config = base.get_config(source="phantoms")
    config.data.path = str(tmp_path)
    assert [record.id for record in load_records(config)] == ["a_image", "a_label"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.npy").write_bytes((tmp_path / "a_image.npy").read_bytes())
    assert [record.id for record in load_records(config, tmp_path / "b")] == ["c"]


def test_prepared_data_sets(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            tensor = partial(tfds.features.Tensor, encoding="bytes")
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                "image": tensor(shape=(None, None, 1), dtype=np.int16),
                "mask": tensor(shape=(None, None, 1), dtype=np.uint8),
                "subject": tfds.features.Text(), "intercept": tfds.features.Scalar(np.float32),
                "class": tfds.features.Scalar(np.int64)}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 4), "test": self._generate_examples(4, 6)}

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                image = np.full((6 + i, 8, 1), i, np.int16)
                image[0] += 1
                mask = (image > i).astype(np.uint8)
                yield f"k{i}", {"image": image, "mask": mask, "subject": f"p{i}", "intercept": -5.0, "class": i}

    builder = Tiny(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    records = Files(path=str(builder.data_dir), cache=str(tmp_path / "cache")).load()
    assert len({r.subject for r in records}) == 6
    assert not any(f"p{i}" in path.read_text() for path in (tmp_path / "cache").rglob("*.json") for i in range(6))
    for record in records:
        i = int(record.extras["class"])
        assert (record.image.shape, record.intercept) == ((6 + i, 8, 1), -5.0)
        assert record.extras["mask"].dtype == bool
    splits = split(records)
    assert {int(r.record.extras["class"]) for r in splits["test"]} == {4, 5}
    assert [len(r) for r in splits.values()] == [3, 1, 2]


@pytest.mark.parametrize(("content", "says"), [
    ("filename,patientid,finding\nM\xfcller.png,p1,clear\n".encode("latin-1"), "can't be read as a CSV table"),
    (b"filename,patientid,finding\ngone.png,p1,clear\nshort.png\n", r"gone\.png: is in the index, but there is no"),
    (b"filename,finding\na.png,clear\n", "has no column 'patientid'"),
])
def test_an_index_that_does_not_fit_is_one_line(tmp_path, content, says):
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        Labelled(str(tmp_path)).load()
    assert "\n" not in str(caught.value)
