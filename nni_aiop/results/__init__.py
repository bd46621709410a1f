"""What a search leaves behind: `results.json`, `history.csv`, reports and pictures."""

from nni_aiop.results._prediction import draw_prediction
from nni_aiop.results._recorder import ResultsRecorder
from nni_aiop.results._search_results import SearchResults, pareto_front
from nni_aiop.results._shrunk import ShrinkReport, Shrunk

__all__ = [
    "ResultsRecorder",
    "SearchResults",
    "ShrinkReport",
    "Shrunk",
    "draw_prediction",
    "pareto_front",
]
