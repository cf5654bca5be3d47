"""Downloads a public data set, shows its licence, and says how to train with it.

    python -m medjax.download msd --subset=Task04_Hippocampus --to=DATA
    python -m medjax.download ixi --subset=T1 --to=DATA

The first word is a file in `datasets/` that says where a data set is given out, or a file of your own that does. A download
that was broken off is resumed when the same command comes again; what is there already is not downloaded again.
"""

import sys
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.data.storage import download
from medjax.data.storage.catalogue import file_of, module_of
from medjax.types import UserError

TO = flags.DEFINE_string("to", None, "The folder that data sets are kept in; this one goes to <name> below it.",
                         required=True)
SUBSET = flags.DEFINE_string("subset", "", "Which of the set to download; may be left out where there is only one.")


def main() -> None:
    """Downloads what the command names."""
    name = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
    file = file_of("medjax.download", name, "public data set", "PublicSet(")
    found = [value for value in vars(module_of(file)).values() if isinstance(value, download.PublicSet)]
    if not found:
        raise UserError(file, "says of no place to download from; give a file with a medjax.data.storage.download.PublicSet")
    for line in download.get(found[0], Path(TO.value).expanduser() / file.stem, SUBSET.value):
        print(line, flush=True)


if __name__ == "__main__":
    cli.run(main)
