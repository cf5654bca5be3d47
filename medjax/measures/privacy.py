"""How much differential privacy is spent: the accountant of Gaussian noise on random subsets of people.

Renyi differential privacy of the subsampled Gaussian mechanism (Mironov, Talwar & Zhang, arXiv 1908.10530, 2019), of which
that of steps adds up, turned into epsilon and delta (Canonne, Kamath & Steinke, NeurIPS 2020, proposition 12). It holds for
Poisson subsampling, where each person takes part in a step by chance, and for data sets that differ by one person.
"""

import numpy as np
from scipy import optimize, special

ORDERS = (1e-4, 1e5)  # by how much the order exceeds 1: any order gives a true bound, the best one the least
REACH = 13.0  # standard deviations beyond which the integrand counts nothing
PER_SIGMA = 24  # points of the integral in a standard deviation
NOISE = (0.05, 100.0)  # multipliers that are looked through: with more, nothing is left of the gradients of a step
DIGITS = 5  # of a multiplier that is looked for


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon that `steps` have spent at `delta`, never too low.

    In each step a person takes part with probability `rate`, and noise of `noise` times the most that one person can change
    is added.
    """
    if not steps or not rate:
        return 0.0

    def at(excess: float) -> float:
        order = 1 + np.exp(excess)
        spent = steps * renyi(rate, noise, order)
        return spent + np.log1p(-1 / order) - (np.log(delta) + np.log(order)) / (order - 1)

    best = optimize.minimize_scalar(at, bounds=tuple(np.log(ORDERS)), method="bounded", options={"xatol": 1e-4})
    return max(0.0, float(best.fun))


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The least noise multiplier by which `steps` spend at most `target`; infinity where none up to 100 does."""
    low, high = NOISE
    if epsilon(rate, high, steps, delta) > target:
        return float("inf")
    if epsilon(rate, low, steps, delta) <= target:
        return low

    def excess(log_noise: float) -> float:
        return epsilon(rate, float(np.exp(log_noise)), steps, delta) - target

    found = float(np.exp(optimize.brentq(excess, np.log(low), np.log(high), xtol=1e-7)))
    unit = 10.0 ** (np.floor(np.log10(found)) + 1 - DIGITS)
    return float(f"{(np.ceil(found / unit) + 1) * unit:.{DIGITS}g}")


def renyi(rate: float, noise: float, order: float) -> float:
    """The Renyi divergence of one step, of any `order` above 1.

    The integral of the likelihood ratio to that power under the noise, on an even grid: its error falls with the exponential
    of the number of points, for the integrand is smooth.
    """
    step = min(noise, noise**2) / PER_SIGMA
    z = np.arange(-REACH * noise, order + REACH * noise + step, step)
    with np.errstate(divide="ignore"):  # where everyone takes part, log of 0
        ratio = np.logaddexp(np.log1p(-rate), np.log(rate) + (2 * z - 1) / (2 * noise**2))
    density = -(z / noise) ** 2 / 2 - np.log(noise) - np.log(2 * np.pi) / 2
    return max(0.0, float(special.logsumexp(density + order * ratio) + np.log(step)) / (order - 1))
