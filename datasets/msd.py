"""Medical Segmentation Decathlon: CT and MR volumes with label maps, a patient each (Antonelli et al., 2022).

Task01 and Task05 are not offered: a file of theirs has several contrasts, which the source `pairs` does not read.
"""

import json
import shlex
from pathlib import Path

from medjax.data.storage.download import File, PublicSet

ADDRESS = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
MD5 = {  # as in MONAI 1.6.1, monai/apps/datasets.py
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}


def train(folder: Path, subset: str) -> str:
    """The classes are those that the task's `dataset.json` names."""
    labels = json.loads((folder / subset / "dataset.json").read_text(encoding="utf-8"))["labels"]
    classes = tuple(labels[number] for number in sorted(labels, key=int))
    return (f"python train.py --config=configs/hippocampus.py --workdir=runs/{subset} "
            f"--config.data.path={shlex.quote(str(folder / subset))} --config.data.source.images='imagesTr/*.nii.gz' "
            f"--config.data.source.labels='labelsTr/*.nii.gz' --config.task.classes={shlex.quote(repr(classes))}")


DOWNLOAD = PublicSet(
    "Medical Segmentation Decathlon", "CC BY-SA 4.0",
    "Antonelli et al., The Medical Segmentation Decathlon, Nat Commun 13, 4128, 2022, doi 10.1038/s41467-022-30695-9",
    "http://medicaldecathlon.com",
    {task: [File(f"{ADDRESS}/{task}.tar", task, md5)] for task, md5 in MD5.items()}, train)
