"""Edits of compute graphs: which channels go together, what can be edited, and what it saves."""

from __future__ import annotations

from nni_aiop.graphs.edits._coupler import Classes, Coupler
from nni_aiop.graphs.edits._coupling import Coupling, Group
from nni_aiop.graphs.edits._edit_plan import COSTS, EditPlan
from nni_aiop.graphs.edits._marks import Labels, Marks, along
from nni_aiop.graphs.edits._rules import group_options, joined, product
from nni_aiop.graphs.edits._sites import Site, as_edit, find_sites, plan_of
from nni_aiop.graphs.edits._structure import Structure, rank_of

__all__ = [
    "COSTS",
    "Classes",
    "Coupler",
    "Coupling",
    "EditPlan",
    "Group",
    "Labels",
    "Marks",
    "Site",
    "Structure",
    "along",
    "as_edit",
    "find_sites",
    "group_options",
    "joined",
    "plan_of",
    "product",
    "rank_of",
]
