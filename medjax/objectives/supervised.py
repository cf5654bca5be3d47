"""Supervised learning: one network, the weighted sum of the task's losses."""

from dataclasses import dataclass

from medjax.objectives._players import deeply_weighted, trained_at_all_levels
from medjax.objectives._single import Single
from medjax.types import Example, Key, Mean, Params, Variables


@dataclass(frozen=True)
class Supervised(Single):
    """The model learns to make the target. `loss` is a weighted sum like "l1 + 0.2*ssim" of what the task offers, and of
    what the model itself sows into "losses" (a VAE's "kl"). Outputs of coarser levels (`config.model.deep_supervision`)
    learn to make the target on their grids.
    """

    loss: str = "l1"

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The terms of `loss`; the variables after this pass."""
        pred, coarse, changed, sown = trained_at_all_levels(self.model, params["model"], variables["model"],
                                                            example.input.image, example.input.context, key=key)
        return deeply_weighted(self.task, self.loss, pred, coarse, example, sown), variables | {"model": changed}
