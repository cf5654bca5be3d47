"""Small sound files of every format that medjax reads, and damaged variants of files, the same in every run."""

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import h5py
import nibabel
import numpy as np
import scipy.io
import SimpleITK as Sitk
from PIL import Image

HEADER = 2048  # where the header of a file is, mostly
NUMBERS = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
TEXTS = (b"0", b"-1", b"1e9", b"99999", b"2147483648", b"9" * 19, b"nan", b"1e400", b"", b"abc")
INTEGERS = (0, 1, -1, 127, 255, 32767, 65535, 100000, 2**31 - 1, -2**31, 2**32 - 1, 2**40, 2**63 - 1)
CHUNK_HEAD = 8  # length and name of a chunk of PNG
CLIPS = {".mp4": ("libx264", "yuv420p"), ".mov": ("mjpeg", "yuvj420p"), ".mkv": ("ffv1", "bgr0"), ".avi": ("ffv1", "gray"),
         ".webm": ("libvpx-vp9", "yuv420p")}


def draw(folder: Path) -> None:
    """One file of each kind, of a few kilobytes."""
    random = np.random.default_rng(0)
    volume = random.integers(0, 1000, (12, 10, 8)).astype(np.int16)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 2], [0, 0, 0, 1]])
    scaled = nibabel.Nifti1Image(volume, affine)
    scaled.header.set_slope_inter(0.5, -100)
    scaled.to_filename(folder / "volume.nii")
    scaled.to_filename(folder / "volume.nii.gz")
    nibabel.Nifti2Image(random.normal(size=(6, 5, 4, 3)).astype(np.float32), affine).to_filename(folder / "series.nii")
    colours = random.integers(0, 255, (6, 5, 4, 3)).astype(np.uint8).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.Nifti1Image(colours, affine).to_filename(folder / "colour.nii")
    pixels = random.integers(0, 255, (24, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "colour.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels).save(folder / "colour.jpg")
    np.save(folder / "array.npy", volume)
    itk = Sitk.GetImageFromArray(volume.T)
    itk.SetSpacing((1.5, 2.0, 3.0))
    for name, packed in (("raw.nrrd", False), ("packed.nrrd", True), ("beside.nhdr", False), ("raw.mha", False),
                         ("packed.mha", True), ("apart.mhd", True)):
        Sitk.WriteImage(itk, str(folder / name), packed)
    _draw_kspace(folder, random)
    _draw_sinograms(folder, random)
    _draw_clips(folder, random)


def _draw_kspace(folder: Path, random: np.random.Generator) -> None:
    kspace = random.normal(size=(2, 3, 12, 10)).astype(np.float32).view(np.complex64)
    np.save(folder / "kspace.npy", kspace)
    (folder / "bart.hdr").write_text("# Dimensions\n12 5 1 3 1 1 1 1 1 1 1 1 1 2 1 1\n")
    kspace.transpose(2, 3, 1, 0).astype(np.complex64).ravel(order="F").tofile(folder / "bart.cfl")
    space = "<matrixSize><x>12</x><y>5</y><z>1</z></matrixSize><fieldOfView_mm><x>240</x><y>100</y><z>5</z></fieldOfView_mm>"
    header = ('<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>' + space
              + "</encodedSpace><reconSpace>" + space.replace("12", "6").replace("240", "120")
              + "</reconSpace><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>")
    with h5py.File(folder / "fastmri.h5", "w") as file:
        file["kspace"] = kspace
        file.create_dataset("reconstruction_rss", data=random.random((2, 6, 5)).astype(np.float32), compression="gzip")
        file["ismrmrd_header"] = header
        file.attrs["patient_id"] = "P1"
    index = np.dtype([(f"kspace_encode_step_{i}", "<u2") for i in (1, 2)] + [(name, "<u2") for name in (
        "average", "slice", "contrast", "phase", "repetition", "set", "segment")] + [("user", "<u2", 8)])
    head = np.dtype([("flags", "<u8"), ("number_of_samples", "<u2"), ("active_channels", "<u2"), ("discard_pre", "<u2"),
                     ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2")]
                    + [(name, "<f4", 3) for name in ("position", "read_dir", "phase_dir", "slice_dir")] + [("idx", index)])
    line = np.dtype([("head", head), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))])
    lines = np.zeros(10, line)
    for number, one in enumerate(lines):
        slice_, row = divmod(number, 5)
        one["head"]["idx"]["slice"], one["head"]["idx"]["kspace_encode_step_1"] = slice_, row
        for key, value in (("number_of_samples", 12), ("active_channels", 3), ("center_sample", 6)):
            one["head"][key] = value
        for axis, key in enumerate(("read_dir", "phase_dir", "slice_dir")):
            one["head"][key][axis] = 1
        one["head"]["position"][2] = 5 * slice_
        one["traj"], one["data"] = np.zeros(0, np.float32), kspace[slice_, :, :, row].ravel().view(np.float32)
    with h5py.File(folder / "ismrmrd.h5", "w") as file:
        file["dataset/data"] = lines
        file["dataset/xml"] = np.array([header.encode()], h5py.string_dtype())


def _draw_sinograms(folder: Path, random: np.random.Generator) -> None:
    sinogram = random.random((10, 40)).astype(np.float32)
    geometry = {"beam": "fan", "angles_deg": {"first": 0, "last": 324, "count": 10}, "detector_count": 40,
                "detector_mm": 1.0, "source_axis_mm": 40.0, "source_detector_mm": 60.0, "pixel_mm": 1.0,
                "image_shape": [12, 12]}
    for name in ("scan_array", "scan_nifti"):
        (folder / f"{name}.json").write_text(json.dumps(geometry))
    np.save(folder / "scan_array.npy", sinogram)
    nibabel.Nifti1Image(sinogram, np.eye(4)).to_filename(folder / "scan_nifti.nii.gz")
    parameters = {"angles": np.arange(10) * 36.0, "numDetectorsPost": 40, "pixelSizePost": 2.0,
                  "effectivePixelSizePost": 0.5, "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74,
                  "scanner": "drawn"}
    for name, packed in (("packed.mat", True), ("raw.mat", False)):
        scan = {"CtDataFull": {"type": "2d", "sinogram": sinogram.astype(np.float64), "parameters": parameters}}
        scipy.io.savemat(folder / name, scan, do_compression=packed)


def _draw_clips(folder: Path, random: np.random.Generator) -> None:
    frames = random.integers(0, 255, (3, 24, 32, 3)).astype(np.uint8)
    for suffix, (codec, layout) in CLIPS.items():
        with av.open(str(folder / f"clip{suffix}"), "w") as file:
            stream = file.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 24, 32, layout
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=layout)))
            file.mux(stream.encode())


def variants(path: Path, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged variants of a file's bytes: bits, ends, header fields, blocks and claimed sizes in turn.

    Every other variant of a gzipped file is damaged inside and packed again; headers of PNG get their checksum back. An
    empty file has none.
    """
    whole = path.read_bytes()
    if not whole:
        return
    inside = _unpacked(whole) if path.name.endswith(".gz") else None
    random = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
    for number in range(count):
        damage = DAMAGES[number % len(DAMAGES)]
        if inside is not None and number // len(DAMAGES) % 2:
            yield gzip.compress(damage(inside, random), 1, mtime=0)
        elif whole.startswith(b"\x89PNG") and damage in (_field, _claim):
            yield _checked(damage(whole, random))
        else:
            yield damage(whole, random)


def _unpacked(data: bytes) -> bytes | None:
    """What is in a gzipped file; None where it is damaged already."""
    try:
        return gzip.decompress(data) or None
    except (OSError, EOFError, zlib.error):
        return None


def _bits(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 16 bits, half of the time in the header."""
    changed = bytearray(data)
    reach = min(len(data), HEADER) if random.random() < 0.5 else len(data)
    for at in random.integers(0, reach, random.integers(1, 17)):
        changed[at] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _end(data: bytes, random: np.random.Generator) -> bytes:
    """The beginning alone, mostly little of it."""
    return data[:int(len(data) * random.random() ** 2)]


def _field(data: bytes, random: np.random.Generator) -> bytes:
    """A few bytes of the header, or a number that is written there as text."""
    written = list(NUMBERS.finditer(data[:HEADER]))
    if written and random.random() < 0.6:
        found = written[random.integers(len(written))]
        return data[:found.start()] + TEXTS[random.integers(len(TEXTS))] + data[found.end():]
    at, size = int(random.integers(min(len(data), 512))), int(random.integers(1, 9))
    return data[:at] + random.bytes(size) + data[at + size:]


def _block(data: bytes, random: np.random.Generator) -> bytes:
    """A block of up to a fifth of the file: noise, zeros or ones."""
    size = int(random.integers(1, max(2, len(data) // 5)))
    at = int(random.integers(max(1, len(data) - size)))
    filled = (random.bytes(size), bytes(size), b"\xff" * size)[random.integers(3)]
    return data[:at] + filled + data[at + size:]


def _claim(data: bytes, random: np.random.Generator) -> bytes:
    """An integer of 2, 4 or 8 bytes in the header, at an even place, in either order; or a text that is a large number."""
    written = list(NUMBERS.finditer(data[:HEADER]))
    if written and random.random() < 0.6:
        found = written[random.integers(len(written))]
        return data[:found.start()] + str(2 ** int(random.integers(10, 62))).encode() + data[found.end():]
    code = "hiq"[random.integers(3)]
    size, order = struct.calcsize(code), "<>"[random.integers(2)]
    value = INTEGERS[random.integers(len(INTEGERS))] & (1 << 8 * size) - 1
    at = 2 * int(random.integers(min(len(data), 512) // 2 + 1))
    return data[:at] + struct.pack(order + code.upper(), value) + data[at + size:]


def _checked(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have, as far as its lengths lead."""
    at, changed = 8, bytearray(data)
    while at + CHUNK_HEAD <= len(changed):
        end = at + CHUNK_HEAD + int.from_bytes(changed[at:at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end:end + 4] = zlib.crc32(changed[at + 4:end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (_bits, _end, _field, _block, _claim)
