#!/usr/bin/env bash
# Beside NNI on Python 3.12, pytest with warnings as errors ends before its first test.
#
# nni 3.0, typeguard 4.1.2, pytest 9.2.0: NNI asks for typeguard below 4.1.3, which is a plugin that
# pytest loads by itself, and which names ast.Str, deprecated since Python 3.12. A project that has
# filterwarnings = error and says nothing of typeguard then ends with "Error while loading plugin".
# `-p no:typeguard` is enough. Needs python3.12 on the PATH. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet nni==3.0 pytest==9.2.0
cd "$folder"
echo 'def test_nothing(): pass' >test_nothing.py
env/bin/python -c 'from importlib.metadata import version; assert version("typeguard") == "4.1.2"'
if env/bin/python -m pytest -q -W error test_nothing.py >told.txt 2>&1; then
    echo "it runs now"
    exit 1
fi
for line in "Error while loading plugin" "typeguard/__init__.py" "DeprecationWarning: ast.Str is deprecated"; do
    grep -m1 -o "$line" told.txt || { cat told.txt; exit 1; }
done
env/bin/python -m pytest -q -W error -p no:typeguard test_nothing.py
