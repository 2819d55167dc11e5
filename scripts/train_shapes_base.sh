#!/usr/bin/env bash
# Trains a base such as data/shapes-base from nothing: the small text-to-image model that `make demo` and `make reproduce` start from.
#
#   scripts/train_shapes_base.sh [OUT]          (default outputs/shapes-base; DEVICE=cuda for a GPU)
#
# 1. Pictures: 10,000 clean stills; and for the VAE alone, which has to paint whatever later models paint, 800 stills of each
#    personalised style and 2,400 veiled clips, as the VAE of Stable Diffusion has seen pictures of every kind.
# 2. `train vae` from random weights. 3. `train image` of the UNet, from random weights, on the clean stills. The text encoder
#    keeps its random weights (configs/shapes/image.yaml says why).
# Every step is skipped when its result is there, and an interrupted training goes on where it was. Remove OUT after an update of
# the program: what an older one rendered and trained is not told from its own.
#
# The bundled data/shapes-base was not made by one run of this script: it grew while the world around it changed (two cores of
# an AMD EPYC; times are of those days).
#   VAE: 6,000 updates with kl_weight 1e-6 (15 minutes, 2026-11-23), then 2,500 with 3e-5 (5.5 minutes, 2026-11-25), and for
#   textures that lie anywhere 3,000 (6e-4, 6 minutes on two threads beside builds, last losses 0.0026, 2026-11-25).
#   UNet: 8,000 and 5,000 updates of 16 for predicting noise (48 minutes), 2,300 for other schedules and texts, 2,000 for the
#   velocity (8 minutes), all until 2026-11-24; then, for the vocabulary of this world and prompts of 16 tokens, 3,000 (9 minutes),
#   and for discs and squares of different areas 2,000 (5 minutes); then, for textures that lie anywhere and shapes seen from near
#   and far, 2,500 of 32 on two threads (8 minutes) and 3,000 and 2,800 on one (14 minutes each), all at 1e-3: the mean loss of
#   the last 500 updates fell to 0.243, 0.227 and 0.214.
# `eval shapes`, 2026-11-25: shape and colour right in 98.5 % of 200 prompts, the VAE at 32.1 dB.
#
# The script in one piece, 2026-11-25, on one thread of that machine, beside other work: 66 minutes, of which 13.5 for the VAE
# (6,000 updates of 4; last loss 0.0020, mean of the last 500 0.0035) and 49 for the UNet (12,000 of 32; last loss 0.245, mean of
# the last 500 0.222). It painted shape and colour right in 97.5 % of 200 prompts, and its VAE kept pictures at 30.9 dB. It was a
# development version: outlines had a paler wash, and in a quarter of the clips, which the VAE alone sees, the camera moved.
set -euo pipefail
shopt -s inherit_errexit   # a training that was stopped stops the script, also within $(...)
cd "$(dirname "$0")/.."

animatediff=${ANIMATEDIFF:-${CARGO_TARGET_DIR:-target}/release/animatediff}
out=${1:-outputs/shapes-base}
device=${DEVICE:-auto}
[[ -x $animatediff ]] || { echo "$animatediff is not built; run make build" >&2; exit 1; }
mkdir -p "$out/runs"

step() { printf '\n== %s\n' "$*" >&2; }

# Renders one set of pictures or clips, unless it is complete.
render() {
  local set=$1
  shift
  [[ -e $out/data/$set/clips.csv ]] || "$animatediff" data shapes "$out/data/$set" --overwrite "$@"
}

# Trains as `name`, or goes on with what was begun; prints where the export lies.
train() {
  local name=$1 kind=$2
  shift 2
  if [[ ! -e $out/$name.done ]]; then
    local begun
    begun=$(find "$out/runs" -maxdepth 1 -name "$name-2*" 2>/dev/null | sort | tail -n 1)
    if [[ -n $begun && -n $(find "$begun/checkpoints" -name 'step-*' 2>/dev/null | head -n 1) ]]; then
      "$animatediff" train "$kind" --resume "$begun" >"$out/$name.export"
    else
      "$animatediff" train "$kind" -c "configs/shapes/$kind.yaml" --name "$name" -o "$out/runs" --device "$device" "$@" \
        >"$out/$name.export"
    fi
    mv "$out/$name.export" "$out/$name.done"
  fi
  cat "$out/$name.done"
}

step "pictures"
render stills --domain stills --clips 10000 --seed 1
render outlines --domain stills --style outlines --clips 800 --seed 2
render night --domain stills --style night --clips 800 --seed 3
render clips --clips 2400 --frames 16 --seed 4
{
  echo video,caption
  for set in stills outlines night; do tail -n +2 "$out/data/$set/clips.csv" | sed "s#^#$set/#"; done
  tail -n +2 "$out/data/clips/clips.csv" | awk -F, '{ print "clips/videos/" $2 "," $5 }'
} >"$out/data/pictures.csv"

step "random weights"
[[ -e $out/init ]] || "$animatediff" init --preset shapes "$out/init"

step "the VAE"
vae=$(train vae vae --base "$out/init" --csv "$out/data/pictures.csv")

step "the UNet"
base=$(train image image --base "$vae" --csv "$out/data/stills/clips.csv")

step "how well it paints"
"$animatediff" eval shapes --base "$base" -o "$out/eval" --overwrite
echo "$base"
