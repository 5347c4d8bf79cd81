#!/usr/bin/env bash
# The one call for a real accelerator that is at hand for minutes; --help says what it measures.
#
#   OUT=FOLDER benchmarks/accelerator.sh
#
# It needs Python with JAX, Flax, Optax and SciPy, and PyTorch for the twin. PYTHON names the
# interpreter; WHEELS names a folder of wheels that it lacks, which are installed for this call alone.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
path=$repository${PYTHONPATH:+:$PYTHONPATH}
if [[ -n ${WHEELS:-} ]]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl
  path=$path:$site
fi
PYTHONPATH=$path "$python" -m benchmarks.accelerator "$@"
