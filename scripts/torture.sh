#!/bin/sh
# Kills processes in the midst of saving so many times (500 unless given), refuses each operation of a save in turn, and fills disks:
# the newest checkpoint must load each time, and none that was told of may be lost. Figures go to standard output.
set -eu
cd "$(dirname "$0")/.."
export ANIMATEDIFF_TORTURE="${1:-500}"
exec cargo test --release --locked --test it torture:: -- --nocapture --test-threads=1
