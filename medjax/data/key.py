"""The secret from which all replacements of a de-identification are derived: who has it can repeat them, nobody else can."""

import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from medjax.files import make_private
from medjax.types import UserError

BYTES = 32
PSEUDONYM_DIGITS = 16  # hexadecimal: 64 bits, and with its prefix within the 16 characters that some archives take
MAX_DAYS = 3650


@dataclass(frozen=True)
class Key:
    """Replacements of identifiers by HMAC-SHA256 with `secret`; the same key gives the same ones in every run."""

    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, path: Path) -> "Key":
        """The key in a file, which is made, readable for its owner alone, where there is none. Raises UserError."""
        try:
            make_private(path, secrets.token_bytes(BYTES))
            secret = path.read_bytes()
        except OSError as error:
            raise UserError(path, f"can't be used as the key file: {error.strerror or error}") from error
        if len(secret) != BYTES:
            raise UserError(path, f"is no key file: it has {len(secret)} bytes, not {BYTES}; name a new file to make a key")
        return cls(secret)

    def uid(self, uid: str) -> str:
        """A UID of the form 2.25.<integer of a UUID> (ITU-T X.667) in the place of `uid`."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=5).int}"

    def pseudonym(self, kind: str, name: str) -> str:
        """16 hexadecimal digits in the place of a name; names of another kind have others."""
        return self._digest(kind, name).hex()[:PSEUDONYM_DIGITS]

    def days(self, patient: str) -> int:
        """By how many days the dates of a patient are moved: 1 to 3650 back."""
        return -1 - int.from_bytes(self._digest("days", patient)[:8], "big") % MAX_DAYS

    def seed(self, purpose: str) -> int:
        """A seed of 64 bits for random numbers that nobody without the key can repeat."""
        return int.from_bytes(self._digest("seed", purpose)[:8], "big")

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self.secret, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
