#!/usr/bin/env bash
# scipy's connected components of a coo_array with 64-bit indices are all -9999, without an exception.
#
# scipy 1.11.1, numpy 1.26.0: the undirected search takes 32-bit indices only. Given others it raises
# inside a function that can raise nothing: "Exception ignored in ..." on standard error, and an array
# that nobody has filled in is returned, with 0 components. NumPy's own indices are of 64 bits.
# scipy 1.17.1 has the right answer. This script fails if either changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/components.py" <<'PYTHON'
import numpy as np
import scipy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

for kind in (np.int32, np.int64):
    places = np.array([1, 2], kind), np.array([2, 3], kind)
    edges = coo_array((np.ones(2), places), shape=(5, 5))
    count, labels = connected_components(edges, directed=False)
    print(scipy.__version__, kind.__name__, count, labels.tolist())
    wrong = scipy.__version__ == "1.11.1" and kind is np.int64
    expected = (0, [-9999] * 5) if wrong else (3, [0, 1, 1, 1, 2])
    assert (count, labels.tolist()) == expected, labels
PYTHON
for versions in "scipy==1.11.1 numpy==1.26.0" "scipy==1.17.1 numpy==2.4.6"; do
	rm -rf "$folder/env"
	python3 -m venv "$folder/env"
	# shellcheck disable=SC2086
	"$folder/env/bin/pip" install --quiet $versions
	"$folder/env/bin/python" "$folder/components.py" 2>"$folder/errors"
	grep -h "Exception ignored" "$folder/errors" | sort -u || true
done
