#!/bin/sh
# Answers a file of questions on several nodes: each task of a Slurm job does its share of the batches.
#   sbatch --ntasks=8 --gpus-per-task=1 --cpus-per-task=8 scripts/slurm_infer.sh --model FOLDER --data questions.json --output answers.jsonl
# The output's folder must be on a file system that all nodes share. After a failure: the same command with --resume,
# with any number of tasks. Not as an array: the tasks wait for each other at the end.
#SBATCH --job-name=medchat-infer
#SBATCH --output=medchat-infer-%j.log
set -eu
: "${SLURM_NTASKS:?sbatch --ntasks=8 scripts/slurm_infer.sh …}"
# sbatch runs a copy of this file, in the folder where it was called.
PATH=${SLURM_SUBMIT_DIR:-.}/.venv/bin:$PATH
. "${SLURM_SUBMIT_DIR:-.}/scripts/program.sh"
# Since Slurm 22.05 srun does not take over what sbatch was asked for.
OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS SRUN_CPUS_PER_TASK
show srun --kill-on-bad-exit=0 medchat infer "$@"
exec srun --kill-on-bad-exit=0 "$program" infer "$@"
