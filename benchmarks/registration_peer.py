"""ANTs' SyN for registration.py: runs in a Python that has antspyx, not medjax. Reads pairs, writes their displacements."""

import sys
import time
from importlib import metadata

import ants
import numpy as np


def displacement(fixed, moving):
    """Voxels from each place of the fixed image to its place in the moving one: SyN warps the moving one's coordinates."""
    one, other = (ants.from_numpy(np.ascontiguousarray(image, np.float32)) for image in (fixed, moving))
    found = ants.registration(fixed=one, moving=other, type_of_transform="SyN")
    places = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in fixed.shape), indexing="ij")
    moved = [ants.apply_transforms(one, ants.from_numpy(place), found["fwdtransforms"]).numpy() for place in places]
    return np.stack(moved, -1) - np.stack(places, -1)


def main() -> None:
    given, made = np.load(sys.argv[1]), {}
    seconds = []
    displacement(given["fixed0"], given["moving0"])
    for i in range(len(given.files) // 2):
        start = time.perf_counter()
        made[f"field{i}"] = displacement(given[f"fixed{i}"], given[f"moving{i}"])
        seconds.append(time.perf_counter() - start)
    np.savez(sys.argv[2], seconds=seconds, version=metadata.version("antspyx"), **made)


if __name__ == "__main__":
    main()
