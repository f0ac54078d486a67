"""What tables I to IV of the paper say of the cost of learners on CIFAR-10, for comparison.
Without torch.

The means of tables I and III are those of the layers of tables II and IV, and are taken from them;
what stands there after the +- are variances over the layers. Section III-E: targets are sparse
unless the paper says otherwise, so the one kind of table II is that with sparse targets.
"""

from __future__ import annotations

from typing import NamedTuple


class Layers(NamedTuple):
    """seconds, mib : of each layer, in order; of backpropagation, of the whole network."""

    seconds: tuple[float, ...]
    mib: tuple[float, ...]


VGG8B: dict[str, Layers] = {
    "bp": Layers((12.29,), (22.00,)),
    "ll-bp": Layers((7.16, 15.80, 9.27, 9.25, 4.93, 7.46, 2.90), (6.12, 14.50, 9.70, 9.70, 9.70, 6.12, 6.12)),
    "ll-fa": Layers((6.21, 15.15, 7.09, 18.40, 5.66, 3.93, 3.00), (10.98, 18.18, 18.18, 10.97, 10.97, 10.98, 10.98)),
    "fsp-sparse": Layers((4.48, 8.95, 10.13, 7.27, 4.71, 3.44, 2.36), (5.67, 9.26, 5.67, 5.67, 5.67, 5.67, 5.67)),
}
"""Tables I (backpropagation) and II, by learner."""

VGG8B_2X: dict[str, Layers] = {
    "fsp": Layers((12.85, 21.51, 18.81, 25.30, 9.69, 8.11, 5.06), (12.99, 20.23, 13.02, 13.02, 13.02, 13.02, 12.99)),
    "fsp-sparse": Layers((7.42, 19.70, 9.30, 14.19, 8.84, 5.24, 2.25), (6.34, 27.53, 9.41, 15.99, 9.10, 6.15, 0.68)),
}
"""Table IV: dense and sparse targets at twice the width."""


def layers_of(name: str, other: str) -> tuple[Layers, Layers] | None:
    """Those of two learners in the same table, or None where they are in none."""
    for table in (VGG8B, VGG8B_2X):
        if name in table and other in table:
            return table[name], table[other]
    return None
