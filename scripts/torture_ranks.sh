#!/usr/bin/env bash
# Processes killed at random moments under torchrun: two train together, one of them is killed with SIGKILL again and again, torchrun
# starts both anew, and they go on from the newest checkpoint. In the end every weight and moment must be what a run without kills has.
#
#   scripts/torture_ranks.sh            20 kills; needs a torchrun (of any PyTorch) on the PATH, or TORCHRUN=/path/to/torchrun
#   KILLS=50 scripts/torture_ranks.sh
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kills=${KILLS:-20} torchrun=${TORCHRUN:-torchrun}
readonly program=$(realpath "${ANIMATEDIFF:-target/release/animatediff}")
command -v "$torchrun" >/dev/null || { echo "torchrun is not there: pip install torch, or set TORCHRUN" >&2; exit 2; }
[[ -x $program ]] || { echo "$program is not there: make build, or set ANIMATEDIFF" >&2; exit 2; }
readonly place=$(mktemp -d)
agent=
trap '[[ -z $agent ]] || kill "$agent" 2>/dev/null; rm -rf "$place"' EXIT
cd "$place"

"$program" init --preset tiny base >/dev/null
"$program" data shapes shapes --clips 8 --frames 8 --size 64 >/dev/null

# Arguments: name of the run, restarts that torchrun may make.
train() {
  OMP_NUM_THREADS=1 "$torchrun" --standalone --nproc-per-node 2 --max-restarts "$2" --no-python \
    "$program" train adapter --base base --csv shapes/clips.csv --name "$1" --max-steps $((20 * kills)) --resume auto \
    --set train_data.video_folder=shapes/videos --set train_data.sample_size=64 --set lora.rank=8 --set use_ema=true \
    --set checkpointing_steps=3 --set keep_checkpoints=2 --set dist_check_steps=10 --set lr_scheduler=cosine --device cpu
}

# The newest file of metrics of run "$1": how many rows it has.
rows() { cat "$(ls -d outputs/"$1"-*/metrics.jsonl 2>/dev/null | tail -1)" 2>/dev/null | wc -l; }

train whole 0 >whole.log 2>&1 || { cat whole.log; exit 1; }

train killed "$((2 * kills))" >killed.log 2>&1 &
agent=$!
killed=0
while ((killed < kills)) && kill -0 "$agent" 2>/dev/null; do
  mapfile -t ranks < <(pgrep -f "^$program train adapter .*--name killed")
  if ((${#ranks[@]} < 2)) || (($(rows killed) < 1)); then sleep 0.05; continue; fi
  # Somewhere in the next updates of either process.
  before=$(rows killed)
  until (($(rows killed) != before)) || ! kill -0 "$agent" 2>/dev/null; do sleep 0.02; done
  sleep "0.$(printf '%03d' $((RANDOM % 400)))"
  victim=${ranks[RANDOM % 2]}
  kill -9 "$victim" 2>/dev/null && killed=$((killed + 1))
  while kill -0 "$victim" 2>/dev/null; do sleep 0.02; done
  # Until torchrun has started both anew.
  until mapfile -t anew < <(pgrep -f "^$program train adapter .*--name killed") && ((${#anew[@]} == 2)) &&
    [[ " ${anew[*]} " != *" ${ranks[0]} "* && " ${anew[*]} " != *" ${ranks[1]} "* ]] || ! kill -0 "$agent" 2>/dev/null; do sleep 0.05; done
done
wait "$agent" || { tail -40 killed.log; exit 1; }
agent=
((killed == kills)) || { echo "the run ended after $killed kills" >&2; exit 1; }

newest() { ls -d "$1"/checkpoints/step-* | tail -1; }
whole=$(ls -d outputs/whole-* | tail -1) other=$(ls -d outputs/killed-* | tail -1)
compared=0
for file in export/$(ls "$whole/export") $(cd "$whole" && echo checkpoints/"$(basename "$(newest .)")"/*.safetensors); do
  cmp "$whole/$file" "$other/$file" || exit 1
  compared=$((compared + 1))
done
[[ $(rows whole) == "$(rows killed)" ]] || { echo "rows: $(rows whole) and $(rows killed)" >&2; exit 1; }
echo "killed $killed times under torchrun; $compared files of weights, moments and averages equal the undisturbed run's after $(rows killed) updates"
