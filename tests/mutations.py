"""Damaged variants of a file, the same in every run: bits turned, bytes cut off, attributes of DICOM given other values."""

import io
import warnings
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement

VALUES = (b"", b"0", b"-1", b"1e400", b"nan", b"1.5\\2", b"\xff", b"\x00", b"\x01\x00", b"\xff\xff\xff\x7f", b"A\\B\\C",
          b"99999")


def variants(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged variants of a DICOM file's bytes, a third of each kind."""
    random = np.random.default_rng(seed)
    values = _values(data)
    for number in range(count):
        kind = number % 3
        if kind == 0:
            yield _bits_turned(data, random)
        elif kind == 1:
            yield data[:int(len(data) * random.random() ** 2)]
        elif values:
            at, length = values[random.integers(len(values))]
            new = (VALUES[random.integers(len(VALUES))] * length)[:length]
            yield data[:at] + new.ljust(length, b" ") + data[at + length:]
        else:
            yield _bits_turned(data, random)


def _bits_turned(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 16 bits, half of the time near the start, where the header is."""
    changed = bytearray(data)
    reach = min(len(data), 4096) if random.random() < 0.5 else len(data)
    for at in random.integers(0, reach, random.integers(1, 17)):
        changed[at] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _values(data: bytes) -> list[tuple[int, int]]:
    """Where the values of short attributes lie, pixel description twice as often as others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            elements = [dataset.get_item(tag) for tag in dataset.keys()]  # noqa: SIM118 (iterating a dataset decodes its values)
    except Exception:
        return []
    found = [e for e in elements if isinstance(e, RawDataElement) and e.value_tell and 0 < e.length < 256]
    found += [e for e in found if e.tag.group in (0x0020, 0x0028)] * 3
    return [(e.value_tell, e.length) for e in found]
