"""Raw MR data of fastMRI, ISMRMRD (written by its own package), BART and NumPy: the same scan out of each."""

from functools import partial

import h5py
import numpy as np
import pytest

from medjax.data import io
from medjax.data.formats import _hdf5, ismrmrd
from medjax.data.sources import kspace as source
from medjax.tasks.mri_recon import MriRecon
from medjax.types import Record, Region, UserError
from tests import records

SHAPE = (3, 2, 16, 12)  # slices, coils, readout, phase encoding
VOXEL = (5.0, 1.5, 2.0)
READ, PHASE, SLICE = np.array([[0, 1.0, 0], [0.6, 0, -0.8], [-0.8, 0, -0.6]])  # left, posterior, superior


def fourier(image: np.ndarray, axes=(-2, -1)) -> np.ndarray:
    """Centred k-space."""
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, axes), axes=axes, norm="ortho"), axes)


@pytest.fixture(scope="module")
def coils() -> np.ndarray:
    """Images of each coil, complex `SHAPE`."""
    return (np.random.default_rng(0).normal(size=(*SHAPE, 2)) @ [1, 1j]).astype(np.complex64)


@pytest.fixture(scope="module")
def kspace(coils) -> np.ndarray:
    return fourier(coils).astype(np.complex64)


def combined(coils: np.ndarray) -> np.ndarray:
    return np.sqrt((np.abs(coils) ** 2).sum(-3))[..., None]


def assert_holds(record: Record, coils: np.ndarray, kspace: np.ndarray) -> None:
    """The root of summed squares of `coils`, and their k-space as channels, in units of the largest value."""
    top = combined(coils).max()
    np.testing.assert_allclose(record.image, combined(coils) / top, atol=2e-6)
    channels = np.moveaxis(np.concatenate([kspace.real, kspace.imag], -3), -3, -1) / top
    np.testing.assert_allclose(record.extras["kspace"], channels, atol=2e-6)
    assert record.image.dtype == record.extras["kspace"].dtype == np.float32
    assert record.modality == "MR"


only = partial(records.only, kind="kspace")


# fastMRI

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientID>P7</patientID></subjectInformation><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fov}</x><y>24</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>12</x><y>24</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def test_fastmri_has_its_voxel_size_and_the_makers_reconstruction(tmp_path, coils, kspace):
    reference = combined(coils)[:, 4:12, :, 0]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"], file["reconstruction_rss"] = kspace, reference
        file["ismrmrd_header"] = HEADER.format(x=16, fov=24)
        file.attrs["patient_id"] = "abc"
    (study,) = io.discover(tmp_path, kind="kspace")
    assert study.subject == "abc"
    (record,) = study.read()
    assert_holds(record, coils, kspace)
    assert record.spacing_mm == (5.0, 1.5, 2.0)
    assert record.extras["readout_oversampling"] == 2
    np.testing.assert_allclose(record.extras["reference"][..., 0], record.image[:, 4:12, :, 0], atol=1e-6)


def test_single_coil_and_slices_alone(tmp_path, coils, kspace):
    with h5py.File(tmp_path / "single.h5", "w") as file:
        file["kspace"] = kspace[:, 0]
    assert_holds(only(tmp_path / "single.h5"), coils[:, :1], kspace[:, :1])
    np.save(tmp_path / "a.npy", kspace[1])
    record = only(tmp_path / "a.npy")
    assert_holds(record, coils[1], kspace[1])
    assert record.ndim == 2
    np.save(tmp_path / "b.npy", np.asfortranarray(kspace.astype(">c16")))
    assert_holds(only(tmp_path / "b.npy"), coils, kspace)


# ISMRMRD


SQUARE = HEADER.format(x=16, fov=12)


def write_ismrmrd(path, kspace, *, rows=range(SHAPE[3]), change=lambda acquisition: None, extra=(), order=range(SHAPE[0]),
                  header=SQUARE):
    """Lines of `kspace` `(slices, coils, readout, phase)` as acquisitions, by the package `ismrmrd`; `extra` first."""
    package = pytest.importorskip("ismrmrd")
    limits = ("<encodingLimits><kspace_encoding_step_1><minimum>{}</minimum><maximum>{}</maximum><center>6</center>"
              "</kspace_encoding_step_1></encodingLimits><trajectory>")
    text = header.replace("<trajectory>", limits.format(min(rows), max(rows)))
    data = package.Dataset(str(path), "dataset")
    data.write_xml_header(text.encode())
    for acquisition in extra:
        data.append_acquisition(acquisition)
    for place in order:
        for row in rows:
            one = package.Acquisition.from_array(np.ascontiguousarray(kspace[place, :, :, row]))
            one.idx.kspace_encode_step_1, one.idx.slice = row, list(order).index(place)
            one.center_sample = kspace.shape[2] // 2
            one.position[:] = np.array([10.0, 20.0, 30.0]) + VOXEL[0] * place * SLICE
            one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = READ, PHASE, SLICE
            change(one)
            data.append_acquisition(one)
    data.close()
    return path


def test_acquisitions_are_sorted_and_placed(tmp_path, coils, kspace):
    """Slices interleaved; the affine puts every voxel where position and directions say, in RAS."""
    path = write_ismrmrd(tmp_path / "a.h5", kspace, order=(1, 0, 2))
    (study,) = io.discover(path, kind="kspace")
    assert (study.format, study.subject) == ("ismrmrd", "P7")
    (record,) = study.read()
    assert_holds(record, coils, kspace)
    np.testing.assert_allclose(record.spacing_mm, (5.0, 0.75, 2.0), rtol=1e-6)
    for index in ((0, 8, 6), (2, 0, 0), (1, 3, 11)):
        place = (np.array([10.0, 20.0, 30.0]) + VOXEL[0] * index[0] * SLICE + 0.75 * (index[1] - 8) * READ
                 + 2.0 * (index[2] - 6) * PHASE)
        np.testing.assert_allclose((record.affine @ [*index, 1])[:3], place * [-1, -1, 1], atol=1e-4)


def test_readout_oversampling_is_removed(tmp_path, coils):
    wide = np.zeros((3, 2, 32, 12), np.complex64)
    wide[:, :, 8:24] = coils
    record = only(write_ismrmrd(tmp_path / "a.h5", fourier(wide).astype(np.complex64), header=HEADER.format(x=32, fov=24)))
    assert_holds(record, coils, fourier(coils))
    np.testing.assert_allclose(record.spacing_mm, (5.0, 0.75, 2.0), rtol=1e-6)


def test_what_is_no_line_of_the_image_is_left_out(tmp_path, coils, kspace):
    """Noise, navigators, phase correction and separate calibration; calibration that is of the image too stays."""
    package = pytest.importorskip("ismrmrd")
    extra = []
    for flag in (package.ACQ_IS_NOISE_MEASUREMENT, package.ACQ_IS_NAVIGATION_DATA, package.ACQ_IS_PHASECORR_DATA,
                 package.ACQ_IS_PARALLEL_CALIBRATION, package.ACQ_IS_DUMMYSCAN_DATA):
        one = package.Acquisition.from_array(np.full((2, 24), 100 + 100j, np.complex64))
        one.set_flag(flag)
        extra.append(one)

    def both(acquisition):
        if acquisition.idx.kspace_encode_step_1 == 6:
            acquisition.set_flag(package.ACQ_IS_PARALLEL_CALIBRATION)
            acquisition.set_flag(package.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)

    assert_holds(only(write_ismrmrd(tmp_path / "a.h5", kspace, extra=extra, change=both)), coils, kspace)


def test_partial_fourier_and_acceleration_leave_zeros(tmp_path, kspace):
    rows = [row for row in range(4, 12) if row % 2]
    sampled = np.zeros_like(kspace)
    sampled[..., rows] = kspace[..., rows]
    sampled[:, :, :5] = 0  # an asymmetric echo too

    def asymmetric(acquisition):
        short = np.array(acquisition.data)[:, 5:]
        acquisition.resize(short.shape[1], short.shape[0])
        acquisition.data[:] = short
        acquisition.center_sample = 3

    record = only(write_ismrmrd(tmp_path / "a.h5", kspace, rows=rows, change=asymmetric))
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(sampled, (-2, -1)), norm="ortho"), (-2, -1))
    assert_holds(record, coils, sampled)


def test_averages_reversed_lines_and_discarded_samples(tmp_path, coils, kspace):
    package = pytest.importorskip("ismrmrd")
    noise = np.random.default_rng(1).normal(size=(*SHAPE, 2)) @ [1, 1j]

    def awkward(acquisition):
        index = acquisition.idx
        if index.kspace_encode_step_1 % 2:
            acquisition.set_flag(package.ACQ_IS_REVERSE)
            acquisition.data[:] = np.array(acquisition.data)[:, ::-1]

    def padded(acquisition):
        long = np.pad(np.array(acquisition.data), ((0, 0), (3, 2)), constant_values=50)
        acquisition.resize(long.shape[1], long.shape[0])
        acquisition.data[:] = long
        acquisition.center_sample, acquisition.discard_pre, acquisition.discard_post = 8 + 3, 3, 2

    assert_holds(only(write_ismrmrd(tmp_path / "a.h5", kspace, change=awkward)), coils, kspace)
    assert_holds(only(write_ismrmrd(tmp_path / "b.h5", kspace, change=padded)), coils, kspace)
    path = write_ismrmrd(tmp_path / "c.h5", (kspace + noise).astype(np.complex64))
    write_ismrmrd(path, (kspace - noise).astype(np.complex64),
                  change=lambda acquisition: setattr(acquisition.idx, "average", 1))
    assert_holds(only(path), coils, kspace)


def test_repetitions_are_records(tmp_path, coils, kspace):
    path = write_ismrmrd(tmp_path / "a.h5", kspace)
    write_ismrmrd(path, 0.5 * kspace, change=lambda acquisition: setattr(acquisition.idx, "repetition", 4))
    first, second = io.read(path, kind="kspace")
    assert (first.id, second.id) == ("a#000", "a#001")
    assert_holds(first, coils, kspace)
    np.testing.assert_allclose(second.image, first.image / 2, atol=1e-6)


def test_slices_of_3d_lie_along_the_readout(tmp_path):
    package = pytest.importorskip("ismrmrd")
    volume = (np.random.default_rng(2).normal(size=(2, 16, 12, 6, 2)) @ [1, 1j]).astype(np.complex64)
    whole = fourier(volume, (1, 2, 3)).astype(np.complex64)
    data = package.Dataset(str(tmp_path / "a.h5"), "dataset")
    data.write_xml_header(SQUARE.replace("<z>1</z>", "<z>6</z>").replace("<z>5</z>", "<z>18</z>").encode())
    for y, z in np.ndindex(12, 6):
        one = package.Acquisition.from_array(np.ascontiguousarray(whole[:, :, y, z]))
        one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2, one.center_sample = y, z, 8
        data.append_acquisition(one)
    data.close()
    record = only(tmp_path / "a.h5")
    coils = np.moveaxis(volume, 1, 0)
    assert_holds(record, coils, fourier(coils))
    assert record.spacing_mm == (0.75, 2.0, 3.0)
    assert record.affine is None  # the lines have no directions
    sizes = [16, 12, 6, 2] + [1] * 12
    (tmp_path / "b.hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n# Creator\nBART\n")
    whole.transpose(1, 2, 3, 0).ravel(order="F").tofile(tmp_path / "b.cfl")
    assert_holds(only(tmp_path / "b.cfl"), coils, fourier(coils))


# BART


def test_bart(tmp_path, coils, kspace):
    """Dimensions 0 readout, 1 phase, 3 coils, 5 echoes, 13 slices."""
    sizes = [16, 12, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1]
    (tmp_path / "a.hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")
    both = np.stack([kspace, 0.5 * kspace])  # echo, slice, coil, readout, phase
    both.transpose(3, 4, 2, 0, 1).ravel(order="F").astype(np.complex64).tofile(tmp_path / "a.cfl")
    (study,) = io.discover(tmp_path, kind="kspace")  # both files are one study
    assert (study.id, [path.name for path in study.paths]) == ("a", ["a.hdr", "a.cfl"])
    first, second = study.read()
    assert_holds(first, coils, kspace)
    np.testing.assert_allclose(second.image, first.image / 2, atol=1e-6)
    for name in ("a.hdr", "a.cfl"):
        assert len(io.read(tmp_path / name, kind="kspace")) == 2
    with pytest.raises(UserError, match="no images below"):
        io.discover(tmp_path)


# Whatever the format


@pytest.mark.parametrize("which", [slice(None), 1])
def test_maps_have_the_form_of_k_space(tmp_path, kspace, monkeypatch, which):
    """What ESPIRiT is given, and what becomes of it; its own tests are elsewhere."""
    monkeypatch.setattr(source, "espirit", lambda coils, calibration: calibration * coils)
    np.save(tmp_path / "a.npy", kspace[which])
    (record,) = source.Kspace(str(tmp_path), calibration=3).load()
    np.testing.assert_allclose(record.extras["maps"], 3 * record.extras["kspace"], rtol=1e-6)


@pytest.mark.parametrize(("name", "content", "says"), [
    ("maps.hdr", "# Dimensions\n4 4 1 2 2\n", "2 sets of coil maps"),
    ("short.hdr", "# Dimensions\n4 4 1 2 9\n", "claims 288 complex numbers"),
    ("none.hdr", "# Dimensions\n4 -4\n", "no BART header"), ("other.hdr", "nothing", "no BART header"),
])
def test_damaged_bart_is_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    np.ones(64, np.complex64).tofile((tmp_path / name).with_suffix(".cfl"))
    with pytest.raises(UserError, match=says):
        io.read(tmp_path / name, kind="kspace")


def test_hdf5_files_that_point_elsewhere_or_claim_too_much_are_refused(tmp_path):
    def says(text):
        with pytest.raises(UserError, match=text) as caught:
            io.read(tmp_path / "a.h5", kind="kspace")
        assert "\n" not in str(caught.value)

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kspace"] = np.ones((2, 2, 4, 4), np.complex64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("secret.h5", "kspace")
    says("links to others don't count")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 2, 4, 4), np.complex64)
        layout[:] = h5py.VirtualSource(secret, "kspace", (2, 2, 4, 4))
        file.create_virtual_dataset("kspace", layout)
    says("in other files; give one that holds them")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", (2000, 20, 640, 320), np.complex64, chunks=(1, 1, 64, 64), compression="gzip")
    says("its header claims 65536000000 bytes")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((4, 4))
    says("k-space is complex")


def test_a_text_that_keeps_hdf5_busy_for_ever_ends_in_one_line(tmp_path, monkeypatch):
    """The free space of the heap of texts claims no size: HDF5 walks on the spot."""
    monkeypatch.setattr(_hdf5, "PATIENCE", 2.0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((2, 2, 4, 4), np.complex64)
        file["ismrmrd_header"] = "x" * 100
    whole = bytearray((tmp_path / "a.h5").read_bytes())
    heap = whole.index(b"GCOL")
    whole[heap + 16:heap + 4096] = bytes(4080)
    (tmp_path / "a.h5").write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.h5: damaged"):
        io.read(tmp_path / "a.h5", kind="kspace")


@pytest.mark.parametrize(("old", "new", "says"), [
    ("<trajectory>cartesian", "<trajectory>spiral", "spiral trajectory"), ("<x>16</x>", "<x>0</x>", "header is damaged"),
    ("<x>16</x>", "<x>many</x>", "header is damaged"), ("<y>12</y>", "<y>4</y>", "lines 0 to 11 around 6"),
    ("<x>16</x>", "<x>999999</x>", "claims"), ("</encoding>", "", "header is damaged"),
    ('<?xml version="1.0"?>', '<!DOCTYPE a [<!ENTITY b "c">]>', "DOCTYPE"),
])
def test_a_header_that_does_not_fit_is_one_line(tmp_path, kspace, old, new, says):
    path = write_ismrmrd(tmp_path / "a.h5", kspace[:1], order=[0], header=SQUARE.replace(old, new))
    with pytest.raises(UserError, match=says) as caught:
        ismrmrd.read([path], "a", "a")
    assert "\n" not in str(caught.value)


def test_files_of_several_matrix_sizes_are_named_and_one_size_can_be_taken(tmp_path):
    random = np.random.default_rng(0)
    for name, shape in (("a", (3, 2, 8, 10)), ("b", (3, 2, 8, 12))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"] = random.normal(size=shape).astype(np.complex64)
    records = source.Kspace(path=str(tmp_path)).load()
    task = MriRecon((0.0, 1.0), 2)
    with pytest.raises(UserError, match=r"several matrix sizes: 8x10 \(a\), 8x12 \(b\); .* config\.data\.source\.matrix"):
        task.resolve_from_data({"train": [Region.whole(record) for record in records]})
    (one,) = source.Kspace(path=str(tmp_path), matrix=(8, 12)).load()
    assert one.id == "b"
    assert task.resolve_from_data({"train": [Region.whole(one)]}) == {}
    with pytest.raises(UserError, match=r"no file has \(9, 9\); there are \(8, 10\), \(8, 12\)"):
        source.Kspace(path=str(tmp_path), matrix=(9, 9)).load()


def test_what_was_measured_with_gaps_is_no_truth_to_compare_with(tmp_path):
    whole = np.random.default_rng(0).normal(size=(2, 2, 8, 10)).astype(np.complex64)
    for name, lines in (("whole", slice(0, 0)), ("gaps", slice(0, None, 2))):
        kspace = whole.copy()
        kspace[..., lines] = 0
        np.save(tmp_path / f"{name}.npy", kspace)
        (record,) = source.Kspace(path=str(tmp_path / f"{name}.npy")).load()
        splits = {"train": [Region.whole(record)]}
        assert MriRecon((0.0, 1.0), 2, held_out=0.1).resolve_from_data(splits) == {}
        if name == "whole":
            MriRecon((0.0, 1.0), 2).resolve_from_data(splits)
            continue
        with pytest.raises(UserError, match=r"^config\.task\.held_out: gaps: .* has gaps.*--config\.metric=held_out$"):
            MriRecon((0.0, 1.0), 2).resolve_from_data(splits)
