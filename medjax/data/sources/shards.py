"""A data set that `python -m medjax.build` has written, read in place: for hosts that have no room to unpack it."""

from dataclasses import dataclass
from pathlib import Path

from medjax.data.storage.shard_reader import records
from medjax.data.storage.tfds_layout import is_prepared
from medjax.types import Record, UserError


@dataclass(frozen=True)
class Shards:
    """The examples in the shards of the folder `path` (`…/<name>/<version>`), each read when a patch of it is wanted.

    The batches are those of the same folder unpacked (`medjax.data.sources.files`), which is faster and takes its room.
    """

    path: str = ""

    def load(self) -> list[Record]:
        """The records; only the index is read. Raises UserError."""
        folder = Path(self.path).expanduser()
        if not self.path or not is_prepared(folder):
            raise UserError("config.data.source.path", f"no prepared data set in {self.path!r}; give the folder that "
                            "python -m medjax.build has written, …/<name>/<version>")
        return records(folder)
