"""What a search leaves behind: `results.json`, `history.csv` and pictures."""

from nni_aiop.results._prediction import draw_prediction
from nni_aiop.results._search_results import SearchResults, pareto_front

__all__ = ["SearchResults", "draw_prediction", "pareto_front"]
