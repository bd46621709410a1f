"""The network that writes architectures token by token, and its tables of what tokens stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
            column = np.array(d.points_of(d.values_of(space.token_points(j))))
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
        self.cell = nn.LSTM(hidden, hidden)
        heads = [nn.Linear(hidden, size - 1) for size in sizes]
        for head in heads:
            # Uniform at first: every architecture is explored.
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)
        self.widths = [head.out_features for head in heads]
        self.alike: list[list[int]] = [
            [j for j, width in enumerate(self.widths) if width == wanted]
            for wanted in sorted(set(self.widths))
        ]
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
        tokens = self.draw(weights, generator)
        return tokens, *self.judge(weights, tokens)

    def draw(self, weights: Tensor, generator: torch.Generator) -> Tensor:
        """(n, d) tokens drawn for budgets, as those of `forward`."""
        with torch.no_grad():
            budget = torch.einsum("nck,ckh->nh", weights, self.budgets)
            n = len(weights)
            inputs, between, *biases = self.cell.all_weights[0]
            # The part of a gate that its input decides is known before the sequence is.
            of_token, of_budget = (part @ inputs.T for part in (self.tokens.weight, budget))
            of_budget = sum(biases, of_budget)
            # The largest of logits plus Gumbel's noise is a draw of their softmax.
            noise = torch.empty(n, sum(self.widths)).exponential_(generator=generator)
            noises = torch.split(noise.log_().neg_(), self.widths, dim=1)
            tokens: list[Tensor] = []
            hidden = memory = budget.new_zeros(n, self.hidden)
            last = torch.zeros(n, dtype=torch.int64)
            for head, offset, rules, gumbel in zip(
                self.heads, self.offsets, self.rules, noises, strict=True
            ):
                gates = torch.addmm(of_budget + of_token[last], hidden, between.T)
                enter, stay, what, leave = gates.chunk(4, dim=1)
                memory = stay.sigmoid_() * memory + enter.sigmoid_() * what.tanh_()
                hidden = leave.sigmoid_() * memory.tanh()
                token = (head(hidden) + gumbel).argmax(1) + 1
                for parent, allowed in rules:
                    token = token * allowed[tokens[parent]]
                tokens.append(token)
                last = token + offset
            return torch.stack(tokens, dim=1)

    def judge(self, weights: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) log-probability of (n, d) tokens, (n,) entropy of their choices, differentiable."""
        budget = torch.einsum("nck,ckh->nh", weights, self.budgets)
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
        before[:, 1:] += torch.tensor(self.offsets[:-1], dtype=torch.int64)
        # All steps at once, as what was drawn is known.
        states, _ = self.cell(self.tokens(before.T) + budget)
        log_prob, entropy = budget.new_zeros(len(tokens)), budget.new_zeros(len(tokens))
        for places in self.alike:
            heads: Any = [self.heads[j] for j in places]
            weight = torch.stack([head.weight for head in heads])
            bias = torch.stack([head.bias for head in heads])
            logits = torch.baddbmm(bias[:, None], states[places], weight.transpose(1, 2))
            log_p = torch.log_softmax(logits, dim=2)
            own = tokens[:, places].T
            of_choice = log_p.gather(2, (own - 1).clamp_min(0)[..., None])[..., 0]
            of_all = -(log_p.exp() * log_p).sum(2)
            log_prob = log_prob + (of_choice * (own > 0)).sum(0)
            entropy = entropy + (of_all * (own > 0)).sum(0)
        return log_prob, entropy

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its weights by the names that files have for them."""
        return {_in_files(name): value.numpy() for name, value in self.state_dict().items()}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `arrays` gave, from among others.

        Raises:
            KeyError, RuntimeError: They are those of another policy.
        """
        own = {name: torch.as_tensor(arrays[_in_files(name)]) for name in self.state_dict()}
        self.load_state_dict(own)


def _in_files(name: str) -> str:
    """The name of a weight in a file; an LSTM's had no layers at first."""
    return name.removesuffix("_l0")
