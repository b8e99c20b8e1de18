#!/bin/sh
# The same questions through the plain model, Alpaca's adapter and BenTsao's, in a Markdown table with their scores.
#   MODEL ALPACA ADAPTER    from the environment: the base, alpaca-lora's adapter, the medical one; names or paths.
#                           ALPACA= or ADAPTER= (empty) leaves that column out
#   BACKBONE DATA OUTPUT    likewise; OUTPUT is a folder, the table is comparison.md in it
# Arguments go on to each `medchat infer`: sh scripts/compare.sh --dtype bfloat16
# All three are checked before the first is asked. What an earlier run has answered is kept: run it again to go on.
set -eu
. "$(dirname -- "$0")/program.sh"
backbone=${BACKBONE:-llama}
model=${MODEL:-llama-7b}
alpaca=${ALPACA-alpaca-lora-7b}
adapter=${ADAPTER-lora-llama-med}
data=${DATA:-data/infer.json}
output=${OUTPUT:-results/compare}

# column NAME ADAPTER TEMPLATE ARGUMENT...: the answers of one column.
column() {
    name=$1 with=$2 template=$3
    shift 3
    run infer --backbone "$backbone" --model "$model" ${with:+--adapter "$with"} --template "$template" \
        --data "$data" --output "$output/$name.jsonl" --resume --num-beams 4 --max-new-tokens 256 "$@"
}

# columns ARGUMENT...: every column, one after the other.
columns() {
    column plain '' ori_template "$@"
    [ -z "$alpaca" ] || column alpaca "$alpaca" alpaca "$@"
    [ -z "$adapter" ] || column med "$adapter" med_template "$@"
}

columns "$@" --check
columns "$@"
become compare "Plain=$output/plain.jsonl" ${alpaca:+"Alpaca=$output/alpaca.jsonl"} \
    ${adapter:+"Med=$output/med.jsonl"} --output "$output/comparison.md"
