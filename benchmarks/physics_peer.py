"""The peers' side of physics_vs_peers.py: runs in a Python that has astra-toolbox, sigpy and scikit-image, not medjax.

Reads a folder with `given.npz`, writes `found.npz` there, then times what it is told to on standard input: `name steps`.
"""

import json
import sys
import time
from pathlib import Path

import astra
import numpy as np
import sigpy
import sigpy.mri
from skimage.transform import iradon, radon


def parallel(size, views):
    """astra's projector by linear interpolation, one pixel per detector, angles over 180 degrees."""
    volume = astra.create_vol_geom(size, size)
    beams = astra.create_proj_geom("parallel", 1.0, size, np.arange(views) * np.pi / views)
    return astra.create_projector("linear", beams, volume), beams, volume


def filtered_back_projection(image, views):
    """astra's FBP of its own sinogram."""
    projector, beams, volume = parallel(len(image), views)
    sinogram, found = astra.data2d.create("-sino", beams, project(projector, image)), astra.data2d.create("-vol", volume)
    config = astra.astra_dict("FBP")
    config |= {"ReconstructionDataId": found, "ProjectionDataId": sinogram, "ProjectorId": projector}
    astra.algorithm.run(astra.algorithm.create(config))
    return astra.data2d.get(found)


def project(projector, image):
    return astra.OpTomo(projector).FP(image)


def main() -> None:
    folder = Path(sys.argv[1])
    given = dict(np.load(folder / "given.npz"))
    head, image, coils, mask, maps = (given[k] for k in ("head", "image", "coils", "mask", "maps"))
    projector, _, _ = parallel(len(image), 360)
    tomography = astra.OpTomo(projector)
    found = {"sinogram": tomography.FP(image), "back": tomography.BP(given["sinogram"])}
    for views in (180, 360):
        found[f"astra_fbp_{views}"] = filtered_back_projection(head, views)
        angles = np.arange(views) * 180.0 / views
        found[f"skimage_fbp_{views}"] = iradon(radon(head, angles, circle=True), angles, circle=True)

    sense = sigpy.mri.linop.Sense(maps, weights=mask.astype(np.float32))
    found["sense"] = sense * given["complex_image"]
    trajectory = given["trajectory"]
    exact = {"oversamp": 2, "width": 6}
    found["nufft_default"] = sigpy.nufft(coils, trajectory)
    found["nufft_exact"] = sigpy.nufft(coils, trajectory, **exact)
    found["espirit"] = sigpy.mri.app.EspiritCalib(given["kspace"], calib_width=24, crop=0.95, show_pbar=False).run()
    np.savez(folder / "found.npz", **found)

    samples = found["nufft_default"]
    work = {
        "forward": lambda: tomography.FP(image),
        "back": lambda: tomography.BP(given["sinogram"]),
        "sense": lambda: sense * given["complex_image"],
        "nufft forward": lambda: sigpy.nufft(coils, trajectory),
        "nufft adjoint": lambda: sigpy.nufft_adjoint(samples, trajectory, coils.shape),
        "nufft forward, as exact": lambda: sigpy.nufft(coils, trajectory, **exact),
        "nufft adjoint, as exact": lambda: sigpy.nufft_adjoint(samples, trajectory, coils.shape, **exact),
    }
    versions = {"astra-toolbox": astra.__version__, "sigpy": sigpy.__version__, "numpy": np.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        name, steps = line.rsplit(maxsplit=1)
        work[name]()
        times = []
        for _ in range(int(steps)):
            start = time.perf_counter()
            work[name]()
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
