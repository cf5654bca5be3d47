"""Video: clips are read and written frame by frame without a loss, damaged ones refused in a line, divided by patient."""

import importlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from medjax import apply
from medjax.data import io, write
from medjax.data.formats import video
from medjax.data.sources.frames import Frames
from medjax.data.split import split
from medjax.train.loop import train
from medjax.types import Derivation, UserError
from tests.records import error_of, study
from tests.video_files import COLOUR, GREY, clip, noise, smooth

RATE = Fraction(30000, 1001)
LOSSY = ("libx264", "yuv420p")
WEBM = ("libvpx-vp9", "yuv420p")


def pixels(path: Path) -> np.ndarray:
    return np.stack([record.image for record in io.read(path)])


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
@pytest.mark.parametrize(("coding", "shape"), [(GREY, (37, 51)), (COLOUR, (37, 51, 3))], ids=["grey", "colour"])
def test_frames_are_what_was_written(tmp_path, suffix, coding, shape):
    frames = noise(4, *shape)
    records = io.read(clip(tmp_path / f"patient_12_L1{suffix}", frames, coding))
    assert [record.id for record in records] == [f"patient_12_L1#{number:03d}" for number in range(4)]
    assert {record.subject for record in records} == {"patient_12_L1"}
    np.testing.assert_array_equal([record.image for record in records], np.reshape(frames, (4, 37, 51, -1)))


def test_one_frame_is_a_picture(tmp_path):
    (record,) = io.read(clip(tmp_path / "still.mkv", noise(1, 8, 10)))
    assert (record.id, record.image.shape) == ("still", (8, 10, 1))


@pytest.mark.parametrize(("suffix", "coding"), [(".mp4", LOSSY), (".mov", LOSSY), (".webm", WEBM)])
def test_grey_in_colour_codecs_has_one_channel(tmp_path, suffix, coding):
    """Within what the codec itself loses: chroma of 4:2:0 at this quality is a few grey levels off."""
    frames = smooth(5, 48, 64)
    found = pixels(clip(tmp_path / f"a{suffix}", frames, coding))
    assert found.shape == (5, 48, 64, 1)
    assert np.abs(found[..., 0].astype(int) - frames).mean() < 3


@pytest.mark.parametrize(("share", "channels"), [(0.04, 1), (0.06, 3)])
def test_marks_in_colour_leave_a_clip_grey(tmp_path, share, channels):
    """The share is that of the whole clip: a mark on one frame of three may be larger."""
    frames = [np.repeat(frame[..., None], 3, -1) for frame in smooth(3, 40, 50)]
    frames[2][:, :round(3 * share * 50)] = (255, 0, 0)
    found = pixels(clip(tmp_path / "a.mkv", frames, COLOUR))
    assert found.shape[-1] == channels
    np.testing.assert_array_equal(found[:2, ..., 0], [frame[..., 0] for frame in frames[:2]])


def test_a_clip_that_is_shown_turned_is_read_upright(tmp_path):
    frames = noise(2, 12, 20)
    found = pixels(clip(tmp_path / "a.mov", frames, ("libx264rgb", "rgb24"), rotation=90, qp="0"))
    np.testing.assert_array_equal(found[..., 0], [np.rot90(frame) for frame in frames])


@pytest.mark.parametrize("suffix", video.SUFFIXES)
@pytest.mark.parametrize("channels", [1, 3])
def test_results_lose_nothing_and_keep_the_frame_rate(tmp_path, suffix, channels):
    """Of odd sizes too, which 4:2:0 has not; beyond 8 bits values are clipped."""
    like = study(clip(tmp_path / "in.mkv", noise(3, 16, 16), rate=RATE))
    values = np.random.default_rng(1).uniform(-20, 275, (3, 37, 51, channels)).astype(np.float32)
    target = tmp_path / f"out{suffix}"
    write.write(target, list(values), like, Derivation("Noise reduced", "series"))
    np.testing.assert_array_equal(pixels(target), np.clip(np.rint(values), 0, 255))
    with av.open(str(target)) as file:
        assert file.streams.video[0].average_rate == RATE
        assert "Noise reduced (series)" in file.metadata.get("comment", file.metadata.get("COMMENT", ""))


def test_label_maps_keep_their_values_and_names(tmp_path):
    like = study(clip(tmp_path / "in.mkv", noise(2, 16, 16)))
    labels = [np.random.default_rng(n).integers(0, 3, (16, 16), np.uint8) for n in range(2)]
    for suffix, key in ((".mkv", "LABELS"), (".mp4", "labels")):
        target = tmp_path / f"out{suffix}"
        write.write_labels(target, labels, ("background", "pleura", "rib"), like)
        np.testing.assert_array_equal(pixels(target)[..., 0], labels)
        with av.open(str(target)) as file:
            assert json.loads(file.metadata[key]) == ["background", "pleura", "rib"]


def test_other_channels_are_no_video(tmp_path):
    like = study(clip(tmp_path / "in.mkv", noise(2, 16, 16)))
    with pytest.raises(UserError, match=r"out\.mkv: 2 channels"):
        write.write(tmp_path / "out.mkv", [np.zeros((16, 16, 2), np.float32)] * 2, like)
    assert not list(tmp_path.glob("*out*"))


# Files that are damaged, or are none


@pytest.mark.parametrize(("suffix", "coding"), [(".mp4", LOSSY), (".mov", LOSSY), (".webm", WEBM), (".mkv", GREY),
                                                (".avi", GREY)])
def test_a_cut_file_is_refused_in_a_line(tmp_path, suffix, coding, capfd):
    """Players show what is left of one; here it would be a shorter clip than the patient's, which nobody would notice."""
    whole = clip(tmp_path / f"whole{suffix}", noise(6, 48, 64), coding).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / f"cut{suffix}").write_bytes(whole[:int(share * len(whole))])
        assert "damaged" in error_of(tmp_path / f"cut{suffix}")
    assert capfd.readouterr() == ("", "")


def test_an_mp4_with_its_index_in_front_is_refused_where_it_is_cut(tmp_path):
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream(LOSSY[0], rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, LOSSY[1]
        for frame in noise(6, 48, 64):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        file.mux(stream.encode())
    assert len(io.read(whole)) == 6
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-500])
    assert "claims" in error_of(tmp_path / "cut.mp4")


@pytest.mark.parametrize("content", [
    b"", b"no video", b"\0" * 4096, b"#EXTM3U\n#EXTINF:1,\nother.ts\n", b"ffconcat version 1.0\nfile other.mp4\n",
    b"\x1aE\xdf\xa3", b"RIFF\xff\xff\xff\xffAVI ", b"\0\0\0\x10ftypisom\0\0\0\0"],
    ids=["nothing", "text", "zeros", "playlist", "list of files", "matroska", "avi", "mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_no_video_is_refused_in_a_line(tmp_path, suffix, content, capfd):
    clip(tmp_path / "other.mp4", smooth(3, 16, 16), LOSSY)
    (tmp_path / f"a{suffix}").write_bytes(content)
    assert error_of(tmp_path / f"a{suffix}").startswith(f"{tmp_path}/a{suffix}: damaged")
    assert capfd.readouterr() == ("", "")


def test_damage_inside_is_refused_and_not_concealed(tmp_path, capfd):
    """FFV1 has checksums; a codec without any can only notice what is no longer a stream."""
    data = bytearray(clip(tmp_path / "a.mkv", noise(4, 48, 64), level="3", slicecrc="1").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.mkv").write_bytes(data)
    assert "damaged" in error_of(tmp_path / "a.mkv")
    assert capfd.readouterr() == ("", "")


def test_a_size_that_is_too_large_takes_no_memory(tmp_path, monkeypatch):
    """The size in the header is changed to 30000 x 30000, of which a frame alone is 2.7 GB."""
    data = bytearray(clip(tmp_path / "a.avi", noise(2, 48, 64)).read_bytes())
    at = data.index(b"strf") + 12  # of BITMAPINFOHEADER: width and height, after its size
    assert int.from_bytes(data[at:at + 4], "little") == 64
    data[at:at + 8] = (30000).to_bytes(4, "little") * 2
    (tmp_path / "a.avi").write_bytes(data)

    def status(key: str) -> int:
        return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if key in line)

    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
    before = status("VmRSS")
    assert "damaged" in error_of(tmp_path / "a.avi")
    assert status("VmHWM") - before < 100 << 10

    clip(tmp_path / "black.mp4", [np.zeros((64, 64), np.uint8)] * 40, LOSSY)
    assert len(io.read(tmp_path / "black.mp4")) == 40
    monkeypatch.setattr(video, "MAX_EASY", 100_000)
    monkeypatch.setattr(video, "MAX_RATIO", 10)
    assert "MiB of frames" in error_of(tmp_path / "black.mp4")


def test_without_the_package_one_line_says_which(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", smooth(2, 16, 16), LOSSY)
    monkeypatch.setitem(sys.modules, "av", None)
    assert error_of(path) == f"{path}: needs the package av: pip install 'medjax[video]'"


# Clips by patient


@pytest.fixture
def ward(tmp_path) -> Path:
    """Clips of five patients, of several lengths and sizes, one of them in colour."""
    for number in range(5):
        size = (24 + 2 * number, 32)
        frames = noise(9 + number, *size, 3, seed=number) if number == 3 else noise(9 + number, *size, seed=number)
        clip(tmp_path / "ward" / f"patient_{number}_L1.mkv", frames, COLOUR if number == 3 else GREY)
    return tmp_path / "ward"


def source(ward: Path, **keys) -> Frames:
    return Frames(str(ward), cache=str(ward.parent / "cache"), **keys)


def test_pieces_of_a_patient_stay_in_one_part(ward):
    records = source(ward, length=4).load()
    assert [record.id for record in records] == [f"patient_{n}_L1:z0t{start}" for n in range(5)
                                                 for start in range(0, 6 + n, 4)]
    assert {record.image.shape[-1] for record in records} == {1}  # grey, as most are
    np.testing.assert_array_equal(records[3].image, pixels(ward / "patient_1_L1.mkv")[4:8])
    parts = split(records, (0.6, 0.2, 0.2))
    subjects = {name: {region.record.subject for region in regions} for name, regions in parts.items()}
    assert [len(subjects[name]) for name in ("train", "val", "test")] == [3, 1, 1]
    assert len(set().union(*subjects.values())) == 5


def test_pieces_are_spread_over_a_clip_and_mapped(ward):
    again = [source(ward, length=2, pieces=3).load() for _ in range(2)]
    assert [record.id.partition(":")[2] for record in again[0][-3:]] == ["z0t2", "z0t6", "z0t10"]
    for first, second in zip(*again, strict=True):
        np.testing.assert_array_equal(first.image, second.image)


def test_a_table_says_whose_the_clips_are(ward, tmp_path):
    (tmp_path / "table.csv").write_text("filename,patientid\n" + "".join(
        f"patient_{n}_L1.mkv,{'ann' if n < 2 else f'p{n}'}\n" for n in range(5)))
    records = source(ward, subjects=str(tmp_path / "table.csv"), length=9).load()
    assert [record.subject for record in records] == ["ann", "ann", "p2", "p3", "p4"]


def test_clips_that_are_too_short_are_left_out_and_said(ward, caplog):
    assert len(source(ward, length=11).load()) == 3
    assert "2 of 5 series are left out: they have fewer than 11 frames" in caplog.text
    with pytest.raises(UserError, match="the longest series has 13 frames"):
        source(ward, length=20).load()


def test_a_still_among_clips_is_refused_or_passed_over(ward):
    clip(ward / "still.mkv", noise(1, 24, 32))
    with pytest.raises(UserError, match=r"still\.mkv: holds 1 frames"):
        source(ward).load()
    assert len(source(ward, match="patient_*").load()) == 5
    with pytest.raises(UserError, match=r"source\.match"):
        source(ward, match="*_R1*").load()


def test_a_clip_goes_through_a_trained_run_and_back_into_a_clip(ward, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = importlib.import_module("configs.ultrasound").get_config()
    config.data.path, config.data.patch = str(ward), (4, 16, 16)
    config.data.source.length, config.model.width, config.references = 4, 2, ("none",)
    config.steps = config.eval_every = config.checkpoint_every = config.batch_size = 2
    config.optim.warmup, config.mesh.data, config.eval_samples = 0, 1, 1
    train(config, tmp_path / "run")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    given, made = ward / "patient_2_L1.mkv", tmp_path / "made" / "out.mp4"
    with flagsaver.flagsaver(workdir=str(tmp_path / "run"), input=[str(given)], output=str(made)):
        apply.main()
    found = pixels(made)
    assert (found.shape, found.dtype) == (pixels(given).shape, np.uint8)
    assert [path.name for path in made.parent.iterdir()] == ["out.mp4"]
