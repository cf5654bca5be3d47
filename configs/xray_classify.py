"""Classification of chest images: findings planted in chest phantoms, or your own X-rays and their index.

    python train.py --config=configs/xray_classify.py --workdir=runs/classify

Measured (docs/scores.md):

    xray_classify: AUC 0.9176, best reference prior 0.5000; 75 images, 75 patients, 1 CPU minutes

Your images: a folder with `index.csv` (columns filename, finding, patientid) and `images/`; classes as in the index:

    python train.py --config=configs/xray_classify.py:source=labelled --workdir=runs/xray \\
        --config.data.source.path=FOLDER "--config.data.source.classes=('COVID-19','*')" \\
        "--config.task.classes=('COVID-19','other')"
"""

import ml_collections

from configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: "model=vgg" or another classifier, "source=labelled" for your own images."""
    config = base.get_config(**base.parse(arg, task="classify", model="resnet", source="chest_findings"))
    config.objective.loss = "cross_entropy"
    config.metric = "auc"
    config.steps = 300
    config.batch_size = 16
    config.data.patch = ()
    config.data.fractions = (0.6, 0.15, 0.25)
    config.data.foreground = 0.0
    config.augment.rotate = 10.0
    config.augment.zoom = 0.1
    config.augment.contrast = 0.2
    config.optim.lr = 2e-3
    config.optim.weight_decay = 1e-2
    config.ema_decay = 0.98
    config.eval_every = 100
    config.checkpoint_every = 100
    config.eval_samples = 0
    if config.data.source.name == "labelled":
        config.data.range = (0.0, 255.0)
    return config
