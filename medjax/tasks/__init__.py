"""What is asked of a network: from records to inputs, targets, losses, metrics and files."""

from medjax.tasks._base import TaskBase
from medjax.tasks._reconstruction import Reconstruction
from medjax.tasks._restoration import Restoration

__all__ = ["Reconstruction", "Restoration", "TaskBase"]
