#!/bin/sh
# Reads so many damaged clips and tables (10,000 unless given) in one process: none may crash it, take ten seconds, or leave memory behind.
# The same ones every time. Figures go to standard error.
set -eu
cd "$(dirname "$0")/.."
export ANIMATEDIFF_HOSTILE_FILES="${1:-10000}"
exec cargo test --release --locked --test it hostile_clips -- --nocapture
