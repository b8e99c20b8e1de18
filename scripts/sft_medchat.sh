#!/bin/sh
# Fine-tunes every weight of ChatGLM-6B as Med-ChatGLM did: its learning rate, batch, epochs, length and seed.
#   sh scripts/sft_medchat.sh MODEL DATA OUTPUT        or MODEL=… DATA=… OUTPUT=… sh scripts/sft_medchat.sh
#   NPROC=8 sh scripts/sft_medchat.sh …                several GPUs; see training.sh for several machines
# Further arguments go on to `medchat sft` and over what stands here: --dry-run, --resume, --collator med (the
# original's own batches), --report-to tensorboard. On one 24 GB card: --precision bfloat16 --optimizer adafactor
# --fused-backward --batch-size 8 --max-grad-norm 0 --gradient-checkpointing.
set -eu
. "$(dirname -- "$0")/training.sh"
model=${MODEL:-chatglm-6b} data=${DATA:-data/train.txt} output=${OUTPUT:-output/chatglm-6b-med}
case ${1-} in '' | -*) ;; *) model=$1 && shift ;; esac
case ${1-} in '' | -*) ;; *) data=$1 && shift ;; esac
case ${1-} in '' | -*) ;; *) output=$1 && shift ;; esac
launch sft --backbone chatglm --method full --model "$model" --data "$data" --output "$output" \
    --learning-rate 5e-5 --num-epochs 3 --batch-size 16 --micro-batch-size 8 --max-length 256 \
    --scheduler linear --warmup-ratio 0.1 --adam-epsilon 1e-3 --seed 2023 \
    --logging-steps 10 --save-steps 0 --val-size 0 "$@"
