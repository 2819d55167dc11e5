#!/usr/bin/env bash
#SBATCH --job-name=motion
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=motion-%j.log
# Stage 2 on 16 GPUs under SLURM: a process for each. Run it from the checkout, in a folder that all machines see: sbatch configs/cluster/slurm.sh
#
# Two minutes before its time is over the job gets SIGTERM, saves a checkpoint and ends with 143; it is then queued again and goes on.
# A machine that is taken away costs what was done since the last checkpoint. A process takes the GPU of its number on its machine, or the
# only one that it sees (--gpus-per-task).
set -uo pipefail
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-8}

srun --kill-on-bad-exit=1 animatediff train motion -c configs/training/motion.yaml --name motion --resume auto "$@"
code=$?
if [[ $code == 143 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
