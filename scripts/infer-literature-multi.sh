#!/bin/sh
# Answers the last question of each dialogue of the literature data, with the turns before it.
# As it stands: LLaMA-7B with BenTsao's lora-llama-literature. By hand: medchat chat --template literature_template …
#   BACKBONE MODEL ADAPTER TEMPLATE DATA OUTPUT    from the environment, as for infer.sh
# Arguments go on to `medchat infer`: sh scripts/infer-literature-multi.sh --resume
set -eu
if [ "${BACKBONE:-llama}" = llama ]; then
    ADAPTER=${ADAPTER-lora-llama-literature}
    export ADAPTER
fi
TEMPLATE=${TEMPLATE-literature_template}
DATA=${DATA:-data-literature/liver_cancer.json}
OUTPUT=${OUTPUT:-results/literature-multi.jsonl}
export TEMPLATE DATA OUTPUT
exec sh "$(dirname -- "$0")/infer.sh" --history all "$@"
