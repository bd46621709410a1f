"""The network that writes architectures token by token, and its tables of what tokens stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["TokenPolicy", "TokenTables"]

Array = NDArray[np.float64]


class TokenTables:
    """From the tokens of a space to its points and codes, and which tokens make which active.

    Token 0 is that of an inactive dimension and stands for its default.

    Args:
        space: Whose tokens they are; where a function says what is active, a token is drawn for
            every dimension, and those of inactive ones stand for the default, too.
    """

    def __init__(self, space: CodeSpace) -> None:
        self.space = space
        self.sizes = space.vocabulary
        self.points: list[Array] = []
        self.codes: list[Array] = []
        for j, d in enumerate(space.dimensions):
            # One sample for each token of the dimension, the others inactive.
            tokens = np.zeros((self.sizes[j], len(space)), dtype=np.int64)
            tokens[:, j] = np.arange(self.sizes[j])
            column = np.array(d.points_of([s[d.label] for s in space.from_tokens(tokens)]))
            self.points.append(column)
            self.codes.append(d.encode(column))
        places = {label: j for j, label in enumerate(space.labels)}
        self.rules: list[list[tuple[int, NDArray[np.bool_]]]] = [[] for _ in space.dimensions]
        for label, conditions in space.conditions.items():
            for condition in conditions:
                parent = places[condition.parent]
                allowed = space.dimensions[parent].points_of(condition.values)
                makes_active = np.isin(self.points[parent], allowed)
                makes_active[0] = False
                self.rules[places[label]].append((parent, makes_active))

    def points_of(self, tokens: NDArray[np.int64]) -> Array:
        """(n, d) points of (n, d) tokens."""
        points = np.stack([p[tokens[:, j]] for j, p in enumerate(self.points)], axis=1)
        return points if self.space.activity is None else self.space.canonical_points(points)

    def codes_of(self, tokens: NDArray[np.int64]) -> Array:
        """(n, width) codes of (n, d) tokens."""
        if self.space.activity is not None:
            return self.space.encode_points(self.points_of(tokens))
        return np.concatenate([c[tokens[:, j]] for j, c in enumerate(self.codes)], axis=1)


class TokenPolicy(nn.Module):
    """An LSTM over the dimensions of a space, conditioned on an embedding of the budget.

    Args:
        tables: Of the space.
        n_costs: Number of costs that a budget vector has.
        k: Number of trained budgets of each.
        hidden: Width of the LSTM and of all embeddings.
    """

    def __init__(self, tables: TokenTables, *, n_costs: int, k: int, hidden: int) -> None:
        super().__init__()
        sizes = tables.sizes
        self.hidden = hidden
        self.budgets = nn.Parameter(0.1 * torch.randn(n_costs, k, hidden))
        self.tokens = nn.Embedding(1 + sum(sizes), hidden)  # the first one starts a sequence
        self.cell = nn.LSTMCell(hidden, hidden)
        heads = [nn.Linear(hidden, size - 1) for size in sizes]
        for head in heads:
            # Uniform at first: every architecture is explored.
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)
        self.offsets = [1 + sum(sizes[:j]) for j in range(len(sizes))]
        self.rules = [
            [(parent, torch.as_tensor(allowed)) for parent, allowed in rules]
            for rules in tables.rules
        ]

    def forward(self, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Architectures drawn for budgets, differentiable in the probabilities.

        Args:
            weights: (n, c, K) interpolation weights of each one's budgets.
            generator: Of the draws.

        Returns:
            (n, d) tokens, (n,) their log-probability, (n,) the entropy of their choices.
        """
        n = len(weights)
        budget = torch.einsum("nck,ckh->nh", weights, self.budgets)
        tokens: list[Tensor] = []
        log_prob, entropy = budget.new_zeros(n), budget.new_zeros(n)
        state = (budget.new_zeros(n, self.hidden), budget.new_zeros(n, self.hidden))
        last = torch.zeros(n, dtype=torch.int64)
        for head, offset, rules in zip(self.heads, self.offsets, self.rules, strict=True):
            state = self.cell(self.tokens(last) + budget, state)
            log_p = torch.log_softmax(head(state[0]), dim=1)
            p = log_p.exp()
            choice = torch.multinomial(p.detach(), 1, generator=generator)
            token = choice[:, 0] + 1
            of_choice, of_all = log_p.gather(1, choice)[:, 0], -(p * log_p).sum(1)
            if rules:
                active = torch.ones(n, dtype=torch.bool)
                for parent, allowed in rules:
                    active = active & allowed[tokens[parent]]
                token = torch.where(active, token, 0)
                of_choice, of_all = of_choice * active, of_all * active
            log_prob, entropy = log_prob + of_choice, entropy + of_all
            tokens.append(token)
            last = token + offset
        return torch.stack(tokens, dim=1), log_prob, entropy
