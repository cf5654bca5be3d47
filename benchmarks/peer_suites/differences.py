"""The conventions by which medjax differs from a peer: what differs, and why medjax has it so."""

DIFFERENCES = {
    "float32": (
        "the test asks for more digits than float32 has",
        "medjax computes in float32, as its networks do. The same test passes with `JAX_ENABLE_X64`."),
    "bits": (
        "the test asks for the last bit of a number, or of another library's Fourier transform",
        "two libraries round in another order. The numbers agree to twelve digits in float64, PyTorch's transforms in "
        "float32 to 1e-6 of their largest value."),
    "empty_truth": (
        "Dice and IoU of a region that is found but is not there: medjax 0, MONAI NaN, which its means leave out",
        "a method that finds what is not there must lose by it. NaN is left for a region that is neither there nor found."),
    "empty_region": (
        "distances where one of the two regions is empty: medjax NaN, MONAI infinite",
        "there is no distance. An infinite one would make every mean infinite. The sample is left out of the mean of "
        "distances, which is to be read beside that of Dice, where it counts 0."),
    "percentile": (
        "the 95 % Hausdorff distance: medjax the percentile of the distances of both ways together, MONAI the larger of "
        "their two percentiles",
        "it is the `hd95` of MedPy, by which the first nnU-Net was scored. The two are the same where both surfaces are "
        "equally far from each other, and for the whole Hausdorff distance, which medjax has as MONAI does."),
    "nothing_there": (
        "recall of a class that is never there, precision of one that is never found: medjax 0, MONAI NaN",
        "it is what scikit-learn gives. The task leaves classes that are not there out of its means itself."),
    "psnr_cap": (
        "PSNR of equal images: medjax 200 dB, MONAI infinite",
        "one perfect sample would make the mean over samples infinite."),
    "nufft_scale": (
        "the scale of the Fourier transform off the grid: medjax orthonormal, mri-nufft smaller by the root of 2 an axis",
        "it is that of the transform on the grid, so that noise has one standard deviation in both."),
    "edge": (
        "back-projections whose two pixels at the edge deepinv overwrites by their neighbours: the test's image, made "
        "of noise, differs from itself by more than the test allows, once that is done to it",
        "the image is a back-projection. medjax's rays pass through pixels (Joseph, 1982); deepinv turns images and "
        "interpolates, which smooths it. Where the edge is left as filtered back-projection gives it, the test passes."),
    "reflect": (
        "the boundary `reflect`: medjax repeats the pixel at the edge, PyTorch does not",
        "the edge lies between pixels, as in SciPy's `reflect`; a mirrored image has no pixel that counts half."),
}
