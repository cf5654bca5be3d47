"""Kvasir-SEG: 1000 colour frames of endoscopies with masks of polyps (Jha et al., 2020). No frame says whose it is."""

import shlex
from pathlib import Path

from medjax.data.storage.download import File, PublicSet


def train(folder: Path, subset: str) -> str:
    """The frames divided at random, since their makers gave no parts."""
    return (f"python train.py --config=configs/polyps.py --workdir=runs/{subset} "
            f"--config.data.path={shlex.quote(str(folder / subset))} --config.data.source.images='images/*.jpg' "
            "--config.data.source.labels='masks/*.jpg' --config.data.source.parts='()' "
            "--config.data.fractions='(0.8,0.1,0.1)'")


DOWNLOAD = PublicSet(
    "Kvasir-SEG", "for research and education only; commercial use needs the consent of its makers",
    "Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020, doi 10.1007/978-3-030-37734-2_37",
    "https://datasets.simula.no/kvasir-seg",
    {"kvasir-seg": [File("https://datasets.simula.no/downloads/kvasir-seg.zip", "kvasir-seg",
                         # as in torch-em, torch_em/data/datasets/medical/kvasir.py
                         "03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7")]}, train)
