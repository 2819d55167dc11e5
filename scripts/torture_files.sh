#!/bin/sh
# Reads so many damaged clips, pictures, archives and tables (10,000 unless given) in one process: none may crash it, take ten seconds, or
# leave memory behind. The same ones every time. Figures go to standard error.
#
#   scripts/torture_files.sh [FILES]
set -eu
cd "$(dirname "$0")/.."
files="${1:-10000}"
case "$files" in
'' | *[!0-9]* | 0*) echo "torture_files.sh: $files: a number of files is expected, such as 10000" >&2 && exit 2 ;;
esac
export ANIMATEDIFF_HOSTILE_FILES="$files"
exec cargo test --release --locked --test it hostile_clips::damaged_clips -- --nocapture
