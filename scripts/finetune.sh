#!/bin/sh
# Trains a LoRA adapter as BenTsao did: its rank, learning rate, batch, epochs and length.
#   sh scripts/finetune.sh MODEL DATA OUTPUT               or MODEL=… DATA=… OUTPUT=… sh scripts/finetune.sh
#   BACKBONE=llama | alpaca | bloom | huozi                alpaca: LLaMA's Chinese-Alpaca. llama unless given
#   TEMPLATE=literature_template DATA=liver_cancer.json    the literature dialogues
#   NPROC=8 sh scripts/finetune.sh …                       several GPUs; see training.sh for several machines
# Further arguments go on to `medchat sft` and over what stands here: --dry-run, --resume, --method qlora.
set -eu
. "$(dirname -- "$0")/training.sh"
case ${BACKBONE:-llama} in
    llama) backbone=llama known=llama-7b template=med_template ;;
    alpaca) backbone=llama known=chinese-alpaca-7b template=med_template ;;
    bloom) backbone=bloom known=bloomz-7b1 template=bloom_deploy ;;
    huozi) backbone=huozi known=huozi-7b-sft template=bloom_deploy ;;
    *)
        echo "错误：BACKBONE=$BACKBONE 无效 / BACKBONE=$BACKBONE is not valid" >&2
        echo '下一步 / Next: BACKBONE=llama | alpaca | bloom | huozi' >&2
        exit 2
        ;;
esac
model=${MODEL:-$known} data=${DATA:-data/llama_data.json} output=${OUTPUT:-output/lora-${BACKBONE:-llama}-med}
case ${1-} in '' | -*) ;; *) model=$1 && shift ;; esac
case ${1-} in '' | -*) ;; *) data=$1 && shift ;; esac
case ${1-} in '' | -*) ;; *) output=$1 && shift ;; esac
launch sft --backbone "$backbone" --method lora --model "$model" --data "$data" --output "$output" \
    --template "${TEMPLATE:-$template}" --lora-r 8 --lora-alpha 16 --lora-dropout 0.05 \
    --learning-rate 3e-4 --num-epochs 10 --batch-size 128 --micro-batch-size 8 --max-length 256 \
    --scheduler linear --warmup-ratio 0.1 --logging-steps 8 --eval-steps 32 --save-steps 32 --save-total 5 "$@"
