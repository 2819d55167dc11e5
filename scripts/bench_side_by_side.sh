#!/usr/bin/env bash
# The speed of this build beside diffusers on the same work: random weights of the same sizes, in turn, so that whatever else
# the machine does falls on both. Prints a table of medians over the rounds; a ratio above 1 means that ours takes less.
#
#   scripts/bench_side_by_side.sh --mode sample --scale tiny --frames 8
#   scripts/bench_side_by_side.sh --mode sample,vae-decode --scale sd15 --size 256 --frames 8 --steps 3 \
#       --dtype bf16 --peer-args '--channels-last' --rounds 3
#
#   --mode LIST        sample, train-motion, vae-decode, startup; several with commas (sample)
#   --rounds N         runs of each side, in turn (3)
#   --scale, --size, --frames, --batch, --steps, --device, --dtype     as in `animatediff bench`; both sides get them
#   --peer-dtype T     another type for the peer than for ours
#   --peer-args WORDS  more options of scripts/peer_bench.py (see its --help), such as '--channels-last --adamw fused'
#   --our-args WORDS   more options of `animatediff bench`
#   --out FILE         where the JSON lines go, one per run, added at the end (outputs/bench.jsonl)
# PEER_PYTHON is a Python with torch and diffusers (python3); ANIMATEDIFF the program, if it is not in target/release.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "bench_side_by_side: $*" >&2; exit 2; }

python=${PEER_PYTHON:-python3}
program=${ANIMATEDIFF:-${CARGO_TARGET_DIR:-$here/../target}/release/animatediff}
modes=sample rounds=3 out=outputs/bench.jsonl device=cpu dtype='' peer_dtype='' batch='' scale=tiny
counted=yes both=() peer_args=() our_args=()
while (($#)); do
  (($# > 1)) || [[ $1 == -h || $1 == --help ]] || fail "$1 needs a value"
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --mode) modes=$2 ;;
    --rounds) rounds=$2 ;;
    --out) out=$2 ;;
    --device) device=$2 ;;
    --dtype) dtype=$2 ;;
    --peer-dtype) peer_dtype=$2 ;;
    --batch) batch=$2 ;;
    --scale) scale=$2 ;;
    --size | --frames | --steps) both+=("$1" "$2") ;;
    --peer-args) read -ra peer_args <<<"$2" ;;
    --our-args) read -ra our_args <<<"$2" ;;
    *) fail "$1 is no option of this script; --help lists them" ;;
  esac
  shift 2
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "--rounds $rounds: a number of at least 1 is expected"
[[ -x $program ]] || fail "$program is not built; run make build, or say where it is with ANIMATEDIFF"
"$python" -c 'import torch, diffusers, transformers' 2>/dev/null ||
  fail "$python lacks torch, diffusers or transformers; name another with PEER_PYTHON"
both+=(--scale "$scale" --device "$device")
mkdir -p "$(dirname "$out")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A run's report goes to FILE and to the table's lines, where it counts.
run() {
  local side=$1 mode=$2
  shift 2
  echo "$side: $*" >&2
  local line
  line=$("$@" 2>"$scratch/errors" | tail -n 1) || { tail -n 20 "$scratch/errors" >&2; fail "$side failed at $mode"; }
  [[ -z $counted ]] || { echo "$line" >>"$out"; printf '%s\t%s\t%s\n' "$side" "$mode" "$line" >>"$scratch/lines"; }
}

ours() {
  local mode=$1 words=("${both[@]}" --json)
  [[ -z $dtype ]] || words+=(--dtype "$dtype")
  [[ $mode == startup ]] && words+=(--weights-dir "$scratch/ours")
  [[ $mode != startup && -n $batch ]] && words+=(--batch "$batch")
  [[ $mode == vae-decode ]] && words=($(without_steps "${words[@]}"))
  run ours "$mode" "$program" bench "$mode" "${words[@]}" "${our_args[@]}"
}

peers() {
  local mode=$1 words=("${both[@]}") type=${peer_dtype:-$dtype}
  [[ -z $type ]] || words+=(--dtype "$type")
  [[ $mode == startup ]] && words+=(--weights-dir "$scratch/peer")
  [[ $mode != startup && -n $batch ]] && words+=(--batch "$batch")
  run peer "$mode" "$python" "$here/peer_bench.py" --mode "$mode" "${words[@]}" "${peer_args[@]}"
}

# Decoding has no steps.
without_steps() {
  while (($#)); do
    if [[ $1 == --steps ]]; then shift 2; else echo "$1"; shift; fi
  done
}

for mode in ${modes//,/ }; do
  case $mode in
    sample | train-motion | vae-decode | startup) ;;
    *) fail "--mode $mode: expected sample, train-motion, vae-decode or startup" ;;
  esac
  # Weights are written, and read once, before anything is measured.
  [[ $mode != startup ]] || { counted=''; ours "$mode"; peers "$mode"; counted=yes; }
  for ((round = 0; round < rounds; round++)); do
    ours "$mode"
    peers "$mode"
  done
  rm -rf "$scratch/ours" "$scratch/peer"
done

"$python" - "$scratch/lines" <<'PYTHON'
import json, statistics, sys

FIELDS = {
    "sample": ["step_s_median", "decode_s", "total_s", "time_to_first_step_s", "peak_mem_gib"],
    "train-motion": ["step_s_median", "time_to_first_step_s", "peak_mem_gib"],
    "vae-decode": ["total_s", "frame_s", "peak_mem_gib"],
    "startup": ["time_to_first_step_s", "load_s", "time_to_clip_s", "peak_mem_gib"],
}
runs = {}
for line in open(sys.argv[1]):
    side, mode, report = line.rstrip("\n").split("\t", 2)
    runs.setdefault(mode, {}).setdefault(side, []).append(json.loads(report))
print(f"{'work':<13} {'figure':<21} {'ours':>10} {'peer':>10} {'peer/ours':>10}")
for mode, sides in runs.items():
    for field in FIELDS[mode]:
        ours, peer = (statistics.median(run[field] for run in sides[side]) for side in ("ours", "peer"))
        print(f"{mode:<13} {field:<21} {ours:>10.4g} {peer:>10.4g} {peer / ours:>10.2f}")
for mode, sides in runs.items():
    for side, reports in sides.items():
        one = reports[0]
        options = [name for name in ("channels_last", "compile", "fuse_qkv", "frozen_low") if one.get(name)]
        options += [f"{name}={one[name]}" for name in ("grad_ckpt", "encode", "adamw", "decode_chunk") if name in one]
        busy = [run["cpu_per_wall"] for run in reports if "cpu_per_wall" in run]
        load = [run["loadavg1"] for run in reports]
        print(
            f"{mode} {side}: {one['peer']} {one.get('diffusers') or one.get('version')}, torch {one['torch']}, {one['scale']} {one['size']}x{one['size']}x{one['frames']}"
            f" batch {one['batch']}, {one['dtype']}, {one['device']}, {one['threads']} threads, {len(reports)} runs"
            + (f", {' '.join(options)}" if options else "")
            + (f", processor seconds per second {min(busy)} to {max(busy)}" if busy else "")
            + f", load {min(load)} to {max(load)}"
        )
PYTHON
