#!/usr/bin/env bash
# What a machine with a GPU has to show: the same samples as on the CPU, three stages that learn in bf16, a run that is taken
# up again, two processes that train as one, options of training that take paths of their own there, and how fast all of it is, beside
# diffusers where that is installed. A section that fails does not stop the others.
#
# Needs the built program, the FFmpeg libraries that it links to, and a CUDA libtorch 2.11: no compiler, no network, and of
# Python nothing but what the peer's script takes.
#
#   scripts/gpu_check.sh                              everything
#   SECTIONS=parity,train,resume scripts/gpu_check.sh
#   DEVICE=cpu scripts/gpu_check.sh                   the script itself, at the smallest size
#
#   ANIMATEDIFF   the program (animatediff beside this script, or target/release/animatediff)
#   LIBRARIES     folder of its FFmpeg libraries (lib beside the program, if there is one)
#   TORCH_LIB     folder of libtorch_cuda.so (that of the Python in /opt/torch/.venv, or of PEER_PYTHON)
#   PEER_PYTHON   a Python with torch and diffusers (python3); without one only ours is measured
#   DEVICE        cuda, or cpu
#   SECTIONS      any of parity,train,options,resume,ranks,bench
#   QUICK=1       fewer and smaller runs in `bench`: about two minutes
#   OUT           where results.jsonl, table.txt and the logs go (outputs/gpu_check)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0; }

first_of() { local path; for path in "$@"; do [[ ! -e $path ]] || { echo "$path"; return; }; done; }

device=${DEVICE:-cuda} sections=${SECTIONS:-parity,train,options,resume,ranks,bench} quick=${QUICK:-}
program=${ANIMATEDIFF:-$(first_of "$here/animatediff" "${CARGO_TARGET_DIR:-$here/../target}/release/animatediff")}
[[ -n $program && -x $program ]] || { echo "gpu_check: the program is not built; say where it is with ANIMATEDIFF" >&2; exit 2; }
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
libraries=${LIBRARIES:-$(first_of "$(dirname "$program")/lib")}
python=${PEER_PYTHON:-$(first_of /opt/torch/.venv/bin/python3 "$(command -v python3)")}
torch=${TORCH_LIB:-}
[[ -n $torch || $device == cpu ]] ||
  torch=$(first_of /opt/torch/.venv/lib/python3*/site-packages/torch/lib "${LIBTORCH:-/nowhere}/lib")
# The peer runs without these: its Python finds its own.
ours=(env "LD_LIBRARY_PATH=$torch${libraries:+:$libraries}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$program")
out=${OUT:-outputs/gpu_check}
mkdir -p "$out/logs"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=$out/results.jsonl
# What rounding may make of the same few updates, relative to the largest number.
readonly rounding=1e-3
: >"$results"
failures=0

# Runs a named step; its output goes to a log, of which the end is shown when it fails.
step() {
  local name=$1 start=$SECONDS code
  shift
  "$@" >"$out/logs/$name.out" 2>"$out/logs/$name.err"
  code=$?
  printf '%-34s %4d s  %s\n' "$name" $((SECONDS - start)) "$([[ $code == 0 ]] && echo done || echo "FAILED ($code)")" >&2
  if ((code != 0)); then
    failures=$((failures + 1))
    tail -n 5 "$out/logs/$name.err" >&2
    printf '{"check":"%s","failed":%d}\n' "$name" "$code" >>"$results"
  fi
  return $code
}

# A number against its limit: check NAME VALUE LIMIT.
check() {
  local verdict
  verdict=$(awk -v value="$2" -v limit="$3" 'BEGIN { print (value == value + 0 && value <= limit) ? "true" : "false" }')
  printf '{"check":"%s","value":"%s","limit":%s,"passed":%s}\n' "$1" "$2" "$3" "$verdict" >>"$results"
  printf '  %-32s %s (at most %s) %s\n' "$1" "$2" "$3" "$([[ $verdict == true ]] && echo ok || echo FAILED)" >&2
  [[ $verdict == true ]] || failures=$((failures + 1))
}

# The numbers of a safetensors file of float32, one a line.
numbers() {
  local header
  header=$(od -An -tu8 -N8 "$1" | tr -d ' ')
  od -An -v -tf4 -w4 -j $((8 + header)) "$1"
}

# Largest difference of two such files, relative to the largest number of the first.
difference() {
  paste <(numbers "$1") <(numbers "$2") | awk '
    NF != 2 || $1 != $1 + 0 || $2 != $2 + 0 { bad = 1 }
    { d = $1 - $2; if (d < 0) d = -d; if (d > most) most = d; a = $1 < 0 ? -$1 : $1; if (a > large) large = a }
    END { if (bad || !NR || !large) print "nothing to compare"; else printf "%.3g\n", most / large }'
}

losses() { sed -n 's/.*"loss":\([-0-9.eE]*\).*/\1/p' "$1"; }

# Largest relative difference of the losses of two runs, step by step.
loss_difference() {
  paste <(losses "$1") <(losses "$2") | awk '
    NF != 2 { bad = 1 } { d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > most) most = d }
    END { if (bad || !NR) print "not the same steps"; else printf "%.3g\n", most }'
}

train() { # STAGE NAME DEVICE PRECISION STEPS …
  local stage=$1 name=$2 where=$3 precision=$4 steps=$5
  shift 5
  "${ours[@]}" train "$stage" --base "$work/base" --videos "$work/shapes/videos" --caption 'a shape' --device "$where" \
    --set precision="$precision" --set train_data.sample_size=64 --set train_data.sample_stride=1 \
    --set train_data.sample_n_frames=8 --set train_batch_size=2 --set checkpointing_steps=-1 --max-steps "$steps" \
    --name "$name" -o "$work/runs" "$@"
}

run_of() { first_of "$work/runs/$1"-*; }

prepare() {
  step base "${ours[@]}" init --preset tiny "$work/base" --seed 1 &&
    step shapes "${ours[@]}" data shapes "$work/shapes" --clips 12 --frames 16 &&
    step module train motion module cpu fp32 2 &&
    module=$work/runs/$(basename "$(run_of module)")/export/motion_module.safetensors
}

section_parity() {
  local where type
  for where in cpu "$device"; do
    for type in fp32 bf16; do
      step "sample-$where-$type" "${ours[@]}" sample --base "$work/base" --motion "$module" --prompt 'a red circle' --seed 1 \
        --steps 10 -W 64 -H 64 -L 8 --device "$where" --dtype "$type" --overwrite \
        --save-latents "$work/$where-$type.safetensors" -o "$work/$where-$type.gif" || return
    done
  done
  check parity_fp32 "$(difference "$work/cpu-fp32.safetensors" "$work/$device-fp32.safetensors")" 2e-3
  check parity_bf16 "$(difference "$work/cpu-fp32.safetensors" "$work/$device-bf16.safetensors")" 0.15
}

section_train() {
  local stage more
  for stage in adapter motion motionlora; do
    more=()
    [[ $stage != motionlora ]] || more=(--motion "$module")
    [[ $stage == motion ]] || more+=(--set lora.rank=8)
    step "train-$stage-cpu-fp32" train $stage $stage-cpu cpu fp32 6 "${more[@]}" || continue
    step "train-$stage-$device-bf16" train $stage $stage-$device-bf16 "$device" bf16 6 "${more[@]}" || continue
    check "losses_${stage}_bf16" \
      "$(loss_difference "$(run_of $stage-cpu)/metrics.jsonl" "$(run_of $stage-$device-bf16)/metrics.jsonl")" 0.05
  done
}

# What takes a path of its own on a device: half precision with its loss scale, moments of 8 bits, averages, blocks computed again.
section_options() {
  # Learning so fast that what the updates were shows in the losses.
  local fast=(--set learning_rate=3e-3) name precision limit more
  step options-cpu train motion options-cpu cpu fp32 6 "${fast[@]}" || return
  step options-plain train motion options-plain "$device" bf16 6 "${fast[@]}" || return
  for name in fp16 8bit ema checkpointing; do
    precision=bf16 limit=0.01 more=()
    case $name in
      fp16)
        [[ $device != cpu ]] || { echo "  half precision is not for the CPU: left out" >&2; continue; }
        precision=fp16 limit=0.05 # an update whose scale was too large is skipped, and later losses are others
        ;;
      8bit) more=(--set use_8bit_adam=true) ;;
      ema) more=(--set use_ema=true) ;;
      checkpointing) more=(--set gradient_checkpointing=full) ;;
    esac
    step "options-$name" train motion "with-$name" "$device" $precision 6 "${fast[@]}" "${more[@]}" || continue
    check "losses_$name" "$(loss_difference "$(run_of options-cpu)/metrics.jsonl" "$(run_of "with-$name")/metrics.jsonl")" $limit
  done
  # Averages are what is exported, and further from the weights than two runs of the same are from one another.
  differ averages "$(run_of options-plain)/export/motion_module.safetensors" "$(run_of with-ema)/export/motion_module.safetensors"
  [[ $device != cpu ]] || return 0
  # At full size, where it counts: computing again and moments of 8 bits take less memory.
  local whole
  whole=$(peak_of plain)
  check memory_checkpointing "$(share "$(peak_of checkpointing --grad-ckpt full)" "$whole")" 0.7
  check memory_8bit "$(share "$(peak_of 8bit --adam8bit)" "$whole")" 0.95
}

# Peak memory of a training step: peak_of NAME OPTIONS of the bench.
peak_of() {
  local name=memory-$1
  shift
  step "$name" "${ours[@]}" bench train-motion --scale sd15 --size 256 --frames 16 --batch 4 --steps 1 --dtype bf16 \
    --device "$device" --json "$@" &&
    field "$(tail -n 1 "$out/logs/$name.out")" peak_mem_gib
}

# The part that A is of B: share A B.
share() {
  awk -v part="${1:-none}" -v whole="${2:-none}" '
    BEGIN { if (part + 0 > 0 && whole + 0 > 0) printf "%.3f\n", part / whole; else print "no figure" }'
}

# Files of float32 that must be further apart than rounding takes them: differ NAME A B.
differ() {
  local away
  away=$(difference "$2" "$3")
  echo "  $1: $away apart" >&2
  check "$1_differ" "$(awk -v away="$away" -v rounding="$rounding" 'BEGIN { print (away + 0 > rounding + 0) ? 0 : "no: " away }')" 0
}

section_resume() {
  step resume-whole train motion whole "$device" bf16 6 || return
  step resume-first train motion halves "$device" bf16 3 || return
  step resume-second "${ours[@]}" train motion --resume "$(run_of halves)" --max-steps 6 || return
  local limit=$rounding
  [[ $device != cpu ]] || limit=0 # there it is the same to the bit
  check resume "$(difference "$(run_of whole)/export/motion_module.safetensors" \
    "$(run_of halves)/export/motion_module.safetensors")" $limit
}

# Two processes on one GPU: NCCL refuses that on one host, so each is told that it is on another.
rank() { # RANK NAME …
  local rank=$1
  shift
  RANK=$rank WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29611 NCCL_HOSTID=host-$rank NCCL_SOCKET_IFNAME=lo \
    train motion "$@" --set dist_check_steps=1 --set use_ema=true
}

pair() { # NAME … : both ranks; the first's outcome
  local other code
  rank 1 "$@" >"$out/logs/rank-1.log" 2>&1 &
  other=$!
  rank 0 "$@"
  code=$?
  wait "$other" || { tail -n 5 "$out/logs/rank-1.log" >&2; return 1; }
  return $code
}

section_ranks() {
  step ranks-one train motion one "$device" fp32 6 --set train_batch_size=2 --set use_ema=true || return
  step ranks-two pair two "$device" fp32 6 --set train_batch_size=1 || return
  # Adam divides what is next to nothing by next to nothing: losses are the measure.
  check losses_two_ranks "$(loss_difference "$(run_of one)/metrics.jsonl" "$(run_of two)/metrics.jsonl")" 1e-4
}

# Ours and, where it can be, the peer's: bench MODE OPTIONS of both -- OPTIONS of the peer's.
bench() {
  local mode=$1 name both=() peers=()
  shift
  while (($#)) && [[ $1 != -- ]]; do both+=("$1"); shift; done
  (($# == 0)) || { shift; peers=("$@"); }
  name=bench-$mode-$(printf '%s' "${both[*]}" | tr -cs 'a-z0-9' '-' | sed 's/-\?\(scale\|size\|frames\|steps\|batch\|dtype\|repeat\)-/-/g; s/^-//')
  local own=("${both[@]}") theirs=("${both[@]}")
  if [[ $mode == vae-decode ]]; then own+=(--decode-chunk "${decode_chunk:-16}"); fi
  step "$name" "${ours[@]}" bench "$mode" --device "$device" --json "${own[@]}" && tail -n 1 "$out/logs/$name.out" >>"$results"
  [[ -n $peer ]] || return 0
  step "$name-peer" "$python" "$here/peer_bench.py" --mode "$mode" --device "$device" "${theirs[@]}" "${peers[@]}" &&
    tail -n 1 "$out/logs/$name-peer.out" >>"$results"
}

section_bench() {
  bench sample --scale tiny --size 64 --frames 16 --steps 10 --dtype fp32
  bench train-motion --scale tiny --size 64 --frames 16 --steps 10 --dtype fp32
  bench vae-decode --scale tiny --size 64 --frames 16 --dtype fp32
  [[ $device != cpu || -n ${SD15:-} ]] || return 0
  local size=512 steps=10
  [[ -z $quick ]] || { size=256 steps=4; }
  bench sample --scale sd15 --size $size --frames 16 --steps $steps --dtype bf16 -- --channels-last
  [[ -n $quick ]] || bench sample --scale sd15 --size 256 --frames 16 --steps 10 --dtype bf16 -- --channels-last
  bench train-motion --scale sd15 --size 256 --frames 16 --steps 5 --dtype bf16 -- --frozen-low --adamw fused
  [[ -n $quick ]] || bench train-motion --scale sd15 --size 256 --frames 16 --batch 4 --steps 3 --dtype bf16 -- --frozen-low --adamw fused
  bench vae-decode --scale sd15 --size $size --frames 16 --dtype bf16 --repeat 3 -- --channels-last
  [[ -n $quick ]] || bench startup --scale sd15 --size 256 --frames 16 --steps 2 --dtype bf16
}

# A field of a line of JSON.
field() { sed -n "s/.*\"$2\": \{0,1\}\"\{0,1\}\([^,\"}]*\).*/\1/p" <<<"$1"; }

table() {
  local line time
  printf '%-12s %-13s %-6s %-5s %5s %6s %5s %10s %9s %9s\n' who work scale dtype size frames batch seconds TFLOP/s GiB
  while IFS= read -r line; do
    [[ $line == *'"peer"'* ]] || continue
    time=$(field "$line" step_s_median)
    case $(field "$line" mode) in vae-decode) time=$(field "$line" total_s) ;; startup) time=$(field "$line" time_to_first_step_s) ;; esac
    printf '%-12s %-13s %-6s %-5s %5s %6s %5s %10s %9s %9s\n' "$(field "$line" peer)" "$(field "$line" mode)" "$(field "$line" scale)" \
      "$(field "$line" dtype)" "$(field "$line" size)" "$(field "$line" frames)" "$(field "$line" batch)" "$time" \
      "$(field "$line" tflop_per_s)" "$(field "$line" peak_mem_gib)"
  done <"$results"
  grep '"check"' "$results" | sed 's/[{}"]//g; s/,/  /g'
}

peer=''
if "$python" -c 'import torch, diffusers, transformers' 2>/dev/null; then
  peer=yes
else
  echo "gpu_check: $python has no torch, diffusers and transformers: the peer is not measured" >&2
fi
step doctor "${ours[@]}" doctor --json
if [[ $device == cuda ]] && ! grep -q '"device by default": "cuda' "$out/logs/doctor.out"; then
  echo "gpu_check: no CUDA device: $(sed -n 's/ *"cuda": //p' "$out/logs/doctor.out")" >&2
  exit 1
fi
module=''
if [[ $sections != bench ]]; then prepare || { echo "gpu_check: nothing to check with; see $out/logs" >&2; sections=bench; }; fi
for section in ${sections//,/ }; do
  case $section in
    parity | train | options | resume | ranks | bench)
      start=$SECONDS
      "section_$section"
      printf -- '-- %s: %d s\n' "$section" $((SECONDS - start)) >&2
      ;;
    *) echo "gpu_check: SECTIONS=$section: expected parity, train, options, resume, ranks or bench" >&2; exit 2 ;;
  esac
done
table | tee "$out/table.txt"
echo "gpu_check: $SECONDS s, $failures failures; everything is in $out" >&2
((failures == 0))
