#!/usr/bin/env bash
# Stage 2 on the 8 GPUs of one machine, under torchrun: when a process ends, all are started anew and go on from the newest checkpoint.
# torchrun is any PyTorch's; it only starts the program. Without one, `animatediff train … --nproc 8` starts the processes by itself, once.
#
# On several machines, start this on each of them with NODES, and HEAD, the first one's address.
set -euo pipefail
cd "$(dirname "$0")/../.."

torchrun --no-python --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-8}" --max-restarts 100 \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29400" --rdzv-id motion \
  animatediff train motion -c configs/training/motion.yaml --name motion --resume auto "$@"
