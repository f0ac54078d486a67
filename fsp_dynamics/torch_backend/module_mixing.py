"""Anderson mixing of a fixed-point iteration y <- T(y) in tensors, each sample with a history of
its own (as kernels/anderson.py).

y <- sum_j alpha_j T(y_j), where the alpha, of sum 1, minimise ||sum_j alpha_j (T(y_j) - y_j)||
over the last passes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Layers = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, Layers]]
"""(rows (A,), y (A, n)) -> T(y), the size of the residual in tolerances (A,), and what belongs to
y, for each row.
"""

MEMORY = 5  # earlier passes that are mixed
RESTART = 10.0  # a residual that has grown by so much empties the history
RIDGE = 1e-12  # of the scaled Gram matrix, in float64


def mix(step: Step, y: torch.Tensor, max_passes: int, boxed: bool = False) -> tuple[Layers, torch.Tensor, torch.Tensor]:
    """Mixed passes from y (B, n) until each sample's residual is within its tolerance; a sample
    that is there is not touched again.

    boxed : y is kept in [0, 1]. Returns what `step` said to belong to the last y of each sample,
    which samples converged (B,), and the passes of each (B,). A sample that is no longer finite
    is left as it is.
    """
    rows = torch.arange(len(y), device=y.device)
    passes, converged = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
    kept: Layers = ()
    history = _History(y)
    for number in range(1, max_passes + 1):
        target, size, belonging = step(rows, y)
        kept = kept or tuple(torch.empty_like(each) for each in belonging)
        going = (size > 1) & size.isfinite()
        left = ~going if number < max_passes else torch.ones_like(going)
        passes[rows], converged[rows] = number, size <= 1
        for all_rows, each in zip(kept, belonging, strict=True):
            all_rows[rows[left]] = each[left]
        if left.all():
            break
        y = history.next(y, target)[going]
        y = y.clamp(0.0, 1.0) if boxed else y
        rows = rows[going]
        history.keep(going)
    return kept, converged, passes


class _History:
    """The last passes of some samples: ys, fs = T(ys) - ys (A, MEMORY, n), and which of them are
    `known` (A, MEMORY).
    """

    def __init__(self, y: torch.Tensor) -> None:
        self.ys, self.fs = (y.new_zeros((len(y), MEMORY, y.shape[1])) for _ in range(2))
        self.known = torch.zeros((len(y), MEMORY), dtype=torch.bool, device=y.device)
        self.size = y.new_full((len(y),), torch.inf)
        self.count = 0

    def next(self, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The y of the next pass, given T(y) of this one."""
        f = target - y
        size = f.norm(dim=1)
        self.known &= (size <= RESTART * self.size)[:, None]
        self.size = size
        mask = self.known[:, :, None]
        gamma = _least((self.fs - f[:, None]) * mask, f)
        mixed = target + (gamma * (self.ys + self.fs - target[:, None]) * mask).sum(1)
        slot = self.count % MEMORY
        self.ys[:, slot], self.fs[:, slot], self.known[:, slot] = y, f, True
        self.count += 1
        return mixed

    def keep(self, going: torch.Tensor) -> None:
        """Go on with these samples only."""
        if not going.all():
            self.ys, self.fs, self.known, self.size = (
                self.ys[going],
                self.fs[going],
                self.known[going],
                self.size[going],
            )


def _least(differences: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """gamma (A, m, 1), the argmin of ||f + sum_j gamma_j differences_j||, by normal equations with
    a ridge in float64; 0 where a difference is 0.
    """
    d = differences.double()
    norms = d.norm(dim=2, keepdim=True)
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    d = d * scale
    gram = d @ d.mT + torch.diag_embed((scale[:, :, 0] == 0).double() + RIDGE)
    right = -(d @ f.double()[:, :, None])
    gamma: torch.Tensor = torch.linalg.solve_ex(gram, right)[0] * scale
    return gamma.to(f.dtype)
