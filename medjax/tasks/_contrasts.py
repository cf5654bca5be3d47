"""Naming the channels of images that hold several contrasts of one subject."""

from collections.abc import Sequence

from medjax.types import Splits, UserError


def channel_names(splits: Splits) -> tuple[str, ...]:
    """The contrasts of the records; channels without names are called "0", "1", …."""
    record = splits["train"][0].record
    channels = record.image.shape[-1]
    return record.contrasts if len(record.contrasts) == channels else tuple(str(i) for i in range(channels))


def check_names(key: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raises UserError where `wanted` holds no contrast or one that the images don't have."""
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise UserError(key, f"the images have no contrast {', '.join(unknown) or 'of an empty name'}; they have "
                        f"{', '.join(names)}")
