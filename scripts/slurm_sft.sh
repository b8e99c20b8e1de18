#!/bin/sh
# Fine-tunes on several nodes: one torchrun on each, started by srun.
#   sbatch --nodes=2 --gres=gpu:4 --cpus-per-task=32 scripts/slurm_sft.sh --backbone llama --model FOLDER --data train.json --output run
# Model, data and output must be on a file system that all nodes share. Save and go on in the next job: --resume.
#SBATCH --job-name=medchat-sft
#SBATCH --ntasks-per-node=1
#SBATCH --output=medchat-sft-%j.log
# Ctrl-C, five minutes before the job's time is up: the run saves a checkpoint.
#SBATCH --signal=INT@300
set -eu
: "${SLURM_JOB_NODELIST:?sbatch --nodes=2 scripts/slurm_sft.sh …}"
NNODES=$SLURM_NNODES
NPROC=${SLURM_GPUS_ON_NODE:-1}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=${MASTER_PORT:-29500}
SCRIPTS=${SLURM_SUBMIT_DIR:-.}/scripts
export NNODES NPROC MASTER_ADDR MASTER_PORT SCRIPTS
# Since Slurm 22.05 srun does not take over what sbatch was asked for.
if [ -n "${SLURM_CPUS_PER_TASK-}" ]; then
    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
# Each task knows which node it is only once srun has started it.
# shellcheck disable=SC2016
exec srun sh -c 'set -- "$SCRIPTS/sft_on_node.sh" "$@"; NODE_RANK=$SLURM_NODEID exec sh "$@"' sh "$@"
