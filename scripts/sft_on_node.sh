#!/bin/sh
# `medchat sft` with as many processes as NPROC says, as one of NNODES machines: for schedulers that start one on each.
#   NPROC NNODES NODE_RANK MASTER_ADDR MASTER_PORT    see training.sh
set -eu
. "$(dirname -- "$0")/training.sh"
launch sft "$@"
