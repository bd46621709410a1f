"""Edits of compute graphs: which channels go together, what can be edited, and what it saves."""

from __future__ import annotations

from nni_aiop.graphs.edits._edit_plan import COSTS, EditPlan
from nni_aiop.graphs.edits._sites import Site, as_edit, find_sites, plan_of

__all__ = ["COSTS", "EditPlan", "Site", "as_edit", "find_sites", "plan_of"]
