#!/bin/sh
# Answers a file of questions. As it stands: LLaMA-7B with BenTsao's lora-llama-med, its template and its decoding.
#   MODEL ADAPTER DATA OUTPUT    from the environment; a name or a path. ADAPTER= (empty): the model alone
#   BACKBONE TEMPLATE            likewise; another backbone has no adapter and its own template unless they are given
# Arguments go on to `medchat infer`: sh scripts/infer.sh --resume --dtype bfloat16
set -eu
. "$(dirname -- "$0")/program.sh"
backbone=${BACKBONE:-llama}
if [ "$backbone" = llama ]; then
    model=${MODEL:-llama-7b}
    adapter=${ADAPTER-lora-llama-med}
    template=${TEMPLATE-${adapter:+med_template}}
else
    model=${MODEL-}
    adapter=${ADAPTER-}
    template=${TEMPLATE-}
fi
set -- --num-beams 4 --max-new-tokens 256 "$@"
set -- ${model:+--model "$model"} ${adapter:+--adapter "$adapter"} ${template:+--template "$template"} "$@"
become infer --backbone "$backbone" --data "${DATA:-data/infer.json}" \
    --output "${OUTPUT:-results/infer.jsonl}" "$@"
