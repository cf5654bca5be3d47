"""Names of studies and subjects as they are stored: salted hashes, for a PatientID or the name of a file may name a person.

The salt of a prepared data set lies beside its folder, readable for its owner alone. Who has it can find the hash of a
name, `pseudonym(salt, name)`; who has the data set without it can't test guesses.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from medjax.files import make_private
from medjax.types import UserError

LENGTH = 20  # hexadecimal digits of a pseudonym: 80 bits
SALT_BYTES = 32
FRAME = re.compile(r"#\d{3,}$")  # how formats number the frames of a study

Naming = Callable[[str], str]
"""From a name to what is stored, or read, in its place."""


def plain(name: str) -> str:
    """The name itself, where it names nobody."""
    return name


def pseudonym(salt: bytes, name: str) -> str:
    """What stands for a name; the number of a frame stays: "scan#003" has the pseudonym of "scan", and "#003"."""
    frame = FRAME.search(name)
    whole = name[:frame.start()] if frame else name
    digest = hmac.new(salt, whole.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
    return digest[:LENGTH] + (frame[0] if frame else "")


def salt_file(folder: Path) -> Path:
    """Where the salt of the data set in `folder` lies."""
    return folder.with_name(f"{folder.name}.salt")


def salt_of(folder: Path) -> bytes:
    """The salt of the data set that is, or will be, in `folder`: from the file beside it, which is made where there is none.

    Raises UserError.
    """
    path = salt_file(folder)
    try:
        make_private(path, secrets.token_hex(SALT_BYTES).encode())
        salt = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(path, f"can't be used as the salt of {folder.name}: {error}; names are stored as hashes with "
                        "it") from error
    if len(salt) != SALT_BYTES:
        raise UserError(path, f"is damaged; restore it, or delete it and {folder.name}, and build the set again")
    return salt
