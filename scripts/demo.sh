#!/usr/bin/env bash
# The three stages and sampling in the world of coloured shapes, on its bundled base: seven minutes on two cores.
# Everything goes to outputs/demo, which is made anew. DEMO_STEPS is the number of updates of the motion module, DEMO_BASE the
# folder of the base.
set -euo pipefail
cd "$(dirname "$0")/.."

animatediff=${CARGO_TARGET_DIR:-target}/release/animatediff
base=${DEMO_BASE:-data/shapes-base}
out=outputs/demo
steps=${DEMO_STEPS:-1300}
((steps >= 60)) || { echo "demo: DEMO_STEPS=$steps is too few; 60 at least" >&2; exit 1; }
[[ -x $animatediff ]] || { echo "demo: $animatediff is not built; run make demo" >&2; exit 1; }
[[ -d $base ]] || { echo "demo: $base is not there; it comes with the repository, see scripts/train_shapes_base.sh" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
SECONDS=0

step() { printf '\n== %d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*" >&2; }

# Trains a stage and prints where its export lies.
train() {
  local stage=$1
  shift
  "$animatediff" train "$stage" -c "configs/shapes/$stage.yaml" --base "$base" --name "$stage" -o "$out/runs" \
    --set checkpointing_steps=-1 "$@"
}
clips=(--csv "$out/shapes/clips.csv" --set "train_data.video_folder=$out/shapes/videos")

step "clips of coloured shapes that move, under a watermark as stock footage has it"
"$animatediff" data shapes "$out/shapes" --clips 600 --frames 16

step "stage 1: the domain adapter learns the look of the clips, on single frames"
adapter=$(train adapter "${clips[@]}" --max-steps "$steps")

step "stage 2: the motion module learns how things move, with the adapter inside"
motion=$(train motion --adapter "$adapter" "${clips[@]}" --max-steps "$steps")

step "stage 3: a MotionLoRA learns a camera that pans to the left, on twenty clips"
"$animatediff" data shapes "$out/vistas" --domain vistas --clips 20 --size 96
"$animatediff" data augment "$out"/vistas/vistas/* --motion pan-left --frames 16 -o "$out/pan_left"
pan=$(train motionlora --motion "$motion" --videos "$out/pan_left" --set lora.rank=32 --max-steps $((steps / 10)))

step "animations: a prompt for each direction; with the adapter; with the MotionLoRA"
sample() {
  "$animatediff" sample --base "$base" --motion "$motion" --seed 1 --steps 20 --guidance-scale 4 -W 64 -H 64 -L 8 "$@" >/dev/null
}
moving='a big red circle moving left on a plain white background'
standing='a big red circle standing still on a checkered grey background'
sample --prompt "$moving" -o "$out/left.gif"
sample --prompt 'a small blue square moving right on a striped grey background' -o "$out/right.gif"
sample --prompt 'a big green triangle moving up on a checkered black background' -o "$out/up.gif"
sample --prompt 'a small yellow circle moving down on a plain black background' -o "$out/down.gif"
sample --prompt "$moving" --adapter "$adapter" -o "$out/with_adapter.gif"
sample --prompt "$standing" --motion-lora "$pan" -o "$out/with_motion_lora.gif"

step "how much of sixteen prompts they get right"
"$animatediff" eval shapes --base "$base" --motion "$motion" --prompts 16 -o "$out/animations"

{
  cat <<'PAGE'
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>AnimateDiff in the world of shapes</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
main { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 160px; font-size: .85rem; }
img { width: 160px; height: 160px; image-rendering: pixelated; border-radius: 4px; }
iframe { width: 100%; height: 46rem; border: 0; }</style></head>
<body><h1>AnimateDiff in the world of shapes</h1><main>
PAGE
  figure() { printf '<figure><img alt="" src="%s"><figcaption>%s</figcaption></figure>\n' "$1" "$2"; }
  figure left.gif "$moving"
  figure right.gif "a small blue square moving right"
  figure up.gif "a big green triangle moving up"
  figure down.gif "a small yellow circle moving down"
  figure with_adapter.gif "the first one's prompt and noise, with the adapter: it brings the watermark back"
  figure with_motion_lora.gif "$standing: the MotionLoRA moves the camera to the left"
  printf '</main><iframe src="animations/index.html" title="Animations and their verdicts"></iframe></body></html>\n'
} >"$out/index.html"

cat <<EOM

Done in $((SECONDS / 60)):$(printf %02d $((SECONDS % 60))). Open
  $out/index.html              the animations, and what was thought of each
  $out/shapes/videos/          the clips it learned from
  $(dirname "$(dirname "$motion")")/
                               a run: metrics.jsonl, tensorboard/, sanity_check/, samples/, checkpoints/, export/
Curves: tensorboard --logdir $out/runs
All claims of the recipe, trained and measured one by one: make reproduce
EOM
