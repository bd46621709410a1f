"""What a search leaves behind: `results.json`, `history.csv`, reports, pictures and a page."""

from nni_aiop.results._front import pareto_front
from nni_aiop.results._prediction import draw_prediction
from nni_aiop.results._recorder import ResultsRecorder
from nni_aiop.results._search_results import SearchResults
from nni_aiop.results._shrunk import ShrinkReport, Shrunk
from nni_aiop.results.report._write import REPORT, write_report

__all__ = [
    "REPORT",
    "ResultsRecorder",
    "SearchResults",
    "ShrinkReport",
    "Shrunk",
    "draw_prediction",
    "pareto_front",
    "write_report",
]
