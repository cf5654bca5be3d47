"""The conventions by which medjax differs from a peer: what differs, and why medjax has it so."""

DIFFERENCES = {
    "float32": (
        "the test asks for more digits than float32 has",
        "medjax computes in float32, as its networks do. The same test passes with `JAX_ENABLE_X64`."),
    "empty_truth": (
        "Dice and IoU of a region that is found but is not there: medjax 0, MONAI NaN, which its means leave out",
        "a method that finds what is not there must lose by it. NaN is left for a region that is neither there nor found."),
    "empty_region": (
        "distances where one of the two regions is empty: medjax NaN, MONAI infinite",
        "there is no distance. An infinite one would make every mean infinite; Dice of the same sample is 0 and counts."),
    "percentile": (
        "the 95 % Hausdorff distance: medjax the percentile of the distances of both ways together, MONAI the larger of the two "
        "percentiles",
        "it is the `hd95` of MedPy, by which published segmentations of many challenges are scored. The two are the same where "
        "both surfaces are equally far from each other, and for the whole Hausdorff distance, which medjax has as MONAI does."),
    "nothing_there": (
        "recall of a class that is never there, precision of one that is never found: medjax 0, MONAI NaN",
        "it is what scikit-learn gives. The task leaves classes that are not there out of its means itself."),
    "psnr_cap": (
        "PSNR of equal images: medjax 200 dB, MONAI infinite",
        "one perfect sample would make the mean over samples infinite."),
    "reflect": (
        "the boundary `reflect`: medjax repeats the pixel at the edge, PyTorch does not",
        "the edge lies between pixels, as in SciPy's `reflect`; a mirrored image has no pixel that counts half."),
}
