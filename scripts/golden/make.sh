#!/bin/sh
# Regenerates data/tokenizer and tests/golden. GOLDEN_PYTHON names a Python that already has requirements.txt installed;
# without it a virtual environment is made in .venv-golden of the checkout.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ -z "${GOLDEN_PYTHON:-}" ]; then
    venv="$root/.venv-golden"
    if [ ! -f "$venv/ready" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
        touch "$venv/ready"
    fi
    GOLDEN_PYTHON="$venv/bin/python"
fi

export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
cd "$here"
for topic in tokenizer base forward motion_options schedules training training_options sampling noise resize pickles keys weights; do
    echo "== $topic"
    "$GOLDEN_PYTHON" "$topic.py"
done
