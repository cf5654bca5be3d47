"""What PyTorch's networks make of given weights and images; runs under the peers' Python for test_peers.py.

    python peers_child.py FOLDER_OF_NETWORKS FOLDER

For every NAME.in.npz in FOLDER (`settings`: JSON for `networks.build`; `x`; `cotangent`; `state/…`) writes NAME.out.npz: the
output in use (`eval`) and in training (`train`), the gradient of its inner product with `cotangent` (`grad/x`, `grad/…`),
the state after the training pass (`state/…`), and the weights of a new network (`new/…`).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def answer(networks, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    settings = json.loads(str(given["settings"]))
    network = networks.build(**settings)
    found = {f"new/{name}": value.numpy().copy() for name, value in network.state_dict().items()}
    # strict: every weight of the network must be given, and there may be no other
    network.load_state_dict({name.removeprefix("state/"): torch.from_numpy(value) for name, value in given.items()
                             if name.startswith("state/")}, strict=True)
    x = torch.from_numpy(given["x"]).requires_grad_()
    with torch.inference_mode():
        found["eval"] = network.eval()(x).numpy()
    y = network.train()(x)
    (y * torch.from_numpy(given["cotangent"])).sum().backward()
    found |= {"train": y.detach().numpy(), "grad/x": x.grad.numpy()}
    found |= {f"grad/{name}": parameter.grad.numpy() for name, parameter in network.named_parameters()}
    return found | {f"state/{name}": value.numpy() for name, value in network.state_dict().items()}


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import networks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    for path in Path(sys.argv[2]).glob("*.in.npz"):
        with np.load(path) as given:
            np.savez(path.with_name(path.name.replace(".in.", ".out.")), **answer(networks, dict(given)))


if __name__ == "__main__":
    main()
