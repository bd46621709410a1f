"""The multi-resolution space of NAS-Bench-MR (NCP, section 3.2): codes, exact costs, network.

A network keeps up to four resolutions side by side, as HRNet does, and 27 numbers say how deep
and how wide each part is.
"""

from nni_aiop.search_spaces.multi_resolution._codes import LABELS, values_of
from nni_aiop.search_spaces.multi_resolution._costs import Head, flops, params
from nni_aiop.search_spaces.multi_resolution._features import features
from nni_aiop.search_spaces.multi_resolution._space import code_space

__all__ = ["LABELS", "Head", "code_space", "features", "flops", "params", "values_of"]
