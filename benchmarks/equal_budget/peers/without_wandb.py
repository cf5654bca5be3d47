"""Import before ldct-benchmark: in the place of the service that its trainers would log to. Nothing is sent."""

import sys
from types import ModuleType, SimpleNamespace

MODULE = ModuleType("wandb")
MODULE.run = SimpleNamespace(dir="")  # type: ignore[attr-defined]
sys.modules["wandb"] = MODULE
