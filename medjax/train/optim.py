"""Optimizers and learning-rate schedules by name; thin over optax."""

from collections.abc import Callable

import optax

from medjax.types import check_choice


def optimizer(steps: int, *, name: str = "adamw", lr: float = 1e-3, schedule: str = "cosine", warmup: int = 100,
              decay_rate: float = 0.5, decay_every: int = 1000, clip: float = 1.0, momentum: float = 0.9,
              b1: float = 0.9, b2: float = 0.999, weight_decay: float = 1e-4,
              moments: str = "float32") -> optax.GradientTransformation:
    """The update rule of a run of `steps` steps.

    `name`: sgd (with `momentum`), rmsprop, adam, adamw (with `weight_decay`), adafactor (Shazeer & Stern, 2018: of a second
    moment only sums over rows and columns are kept, of the first nothing). `moments="bfloat16"` halves Adam's first
    moment; the second stays float32, for in bfloat16 a change by 1 - `b2` rounds to none. `schedule`: constant, exponential
    (times `decay_rate` over each `decay_every` steps), step (the same, all at once), cosine (down to 0 at the last). Each
    begins with `warmup` steps from 0. `clip` bounds the gradient's global norm; 0 leaves it.
    """
    rate = learning_rate(steps, lr, schedule, warmup, decay_rate, decay_every)
    rules = {
        "sgd": lambda: optax.sgd(rate, momentum=momentum),
        "rmsprop": lambda: optax.rmsprop(rate, decay=0.99, momentum=momentum),
        "adam": lambda: optax.adam(rate, b1=b1, b2=b2, mu_dtype=moments),
        "adamw": lambda: optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay,
                                     mu_dtype=moments),
        "adafactor": lambda: optax.adafactor(rate, min_dim_size_to_factor=16, multiply_by_parameter_scale=False),
    }
    check_choice("config.optim.name", name, rules)
    check_choice("config.optim.moments", moments, ("float32", "bfloat16"))
    return optax.chain(optax.clip_by_global_norm(clip), rules[name]()) if clip else rules[name]()


def learning_rate(steps: int, lr: float, schedule: str, warmup: int, decay_rate: float, decay_every: int) -> optax.Schedule:
    """The learning rate by step."""
    warmup = min(warmup, steps // 2)
    after: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(lr),
        "exponential": lambda: optax.exponential_decay(lr, decay_every, decay_rate),
        "step": lambda: optax.exponential_decay(lr, decay_every, decay_rate, staircase=True),
        "cosine": lambda: optax.cosine_decay_schedule(lr, max(steps - warmup, 1)),
    }
    check_choice("config.optim.schedule", schedule, after)
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), after[schedule]()], [warmup])
