#!/usr/bin/env bash
# The three stages and sampling, end to end, on a random base and a dozen rendered clips: a few minutes on two cores.
# Everything goes to outputs/demo, which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."

animatediff=${CARGO_TARGET_DIR:-target}/release/animatediff
out=outputs/demo
steps=${DEMO_STEPS:-40}
[[ -x $animatediff ]] || { echo "demo: $animatediff is not built; run make demo" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n' "$*" >&2; }

# Trains a stage and prints where its export lies.
train() {
  local stage=$1
  shift
  "$animatediff" train "$stage" -c "configs/training/$stage.yaml" --base "$out/base" --name "$stage" -o "$out/runs" \
    --max-steps "$steps" --set validation_steps="$steps" --set 'validation_steps_tuple=[]' \
    --set train_data.sample_size=64 --set train_data.prefetch=8 --set num_workers=2 --set learning_rate=1e-3 \
    --set 'validation_data.prompts=["a red circle moving left"]' --set validation_data.num_inference_steps=10 \
    --set checkpointing_steps=-1 "$@"
}

step "twelve clips of coloured shapes, and six of a camera that moves in on them"
"$animatediff" data shapes "$out/shapes" --clips 12 --size 64 --frames 24
"$animatediff" data augment "$out"/shapes/videos/*.mp4 --motion zoom-in --clips 6 --frames 24 --size 64 \
  --caption 'shapes, the camera moves in' -o "$out/zoom_in"

step "a small base model with random weights"
"$animatediff" init --preset tiny "$out/base"

step "stage 1: the domain adapter, on single frames"
adapter=$(train adapter --videos "$out/shapes/videos" --caption 'a shape' --set lora.rank=8 --set train_batch_size=8)

clips=(--set "train_data.csv_path=$out/shapes/clips.csv" --set "train_data.video_folder=$out/shapes/videos"
  --set train_data.sample_stride=2 --set train_data.sample_n_frames=8)

step "stage 2: the motion module, on clips, with the adapter inside"
motion=$(train motion --adapter "$adapter" "${clips[@]}" --set train_batch_size=2)

step "stage 3: a MotionLoRA, on the clips that zoom in"
zoom=$(train motionlora --motion "$motion" --adapter "$adapter" --videos "$out/zoom_in" --set lora.rank=8 \
  --set train_batch_size=2 --set train_data.sample_stride=2 --set train_data.sample_n_frames=8)

step "sampling: with the adapter, without it, and with the MotionLoRA"
sample() {
  "$animatediff" sample --base "$out/base" --motion "$motion" --prompt 'a red circle moving left' --seed 1 --steps 15 \
    -W 64 -H 64 -L 8 "$@" >/dev/null
}
sample --adapter "$adapter" -o "$out/with_adapter.gif"
sample --adapter "$adapter" --adapter-scale 0 -o "$out/without_adapter.gif"
sample --motion-lora "$zoom" -o "$out/with_motion_lora.gif"
sample --motion-lora "$zoom" -o "$out/with_motion_lora.mp4"

cat <<EOM

Done. The base is random, so the pictures are of noise; what can be seen is that every stage trains, saves, loads and samples.
Open
  $out/with_adapter.gif        the adapter at scale 1
  $out/without_adapter.gif     the same noise, adapter dropped
  $out/with_motion_lora.gif    the same noise, with the MotionLoRA (also as .mp4)
  $out/shapes/videos/          the clips it learned from
  $(dirname "$(dirname "$motion")")/
                               a run: metrics.jsonl, tensorboard/, sanity_check/, samples/, checkpoints/, export/
Curves: tensorboard --logdir $out/runs
EOM
