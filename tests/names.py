"""What names are stored as in a prepared data set."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medjax.types import Record


def stored_as(folder: Path, name: str) -> str:
    """The first 20 digits of the HMAC-SHA256 of a name, keyed by the salt beside the set."""
    salt = bytes.fromhex(folder.with_name(f"{folder.name}.salt").read_text())
    return hmac.new(salt, name.encode(), hashlib.sha256).hexdigest()[:20]


def readable(folder: Path, records: Iterable[Record], names: Iterable[str]) -> list[Record]:
    """`records` of the set in `folder` with ids and subjects that are among `names` in the place of their hashes."""
    known = {stored_as(folder, name): name for name in names}

    def name(stored: str) -> str:
        whole, colon, corner = stored.partition(":")
        return known[whole] + colon + corner

    return [replace(record, id=name(record.id), subject=name(record.subject)) for record in records]
