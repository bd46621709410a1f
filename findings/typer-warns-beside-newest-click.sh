#!/usr/bin/env bash
# typer 0.12 to 0.25 admits the newest click, and warns of it at its own import.
#
# typer 0.12.5 and 0.25.0, the ends that were tried, click 8.5.1: `import typer` takes
# get_binary_stream from click.utils, which click 8.5 deprecates: a DeprecationWarning, and an error in
# a project that makes errors of warnings. Neither asks for click below 8.5, so that pip installs the
# two together. typer 0.29.2 imports silently. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
cd "$folder"
for version in 0.12.5 0.25.0 0.29.2; do
    env/bin/pip install --quiet "typer==$version" click==8.5.1
    told=$(env/bin/python -W error -c "import typer" 2>&1 | tail -1) || true
    echo "typer $version: ${told:-silent}"
    case $version in
    0.29.2) [[ -z $told ]] ;;
    *) [[ $told == DeprecationWarning*click.utils.get_binary_stream* ]] ;;
    esac
done
