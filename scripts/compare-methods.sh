#!/bin/sh
# The course report's experiment: LoRA, QLoRA and Adapter trained on one base with the same data, then one table.
#   BACKBONE MODEL DATA     from the environment: the family, the base, the training data
#   QUESTIONS               choice questions in any form of docs/eval.md; without it those that are shipped
#   METHODS OUTPUT          "lora qlora adapter"; a folder
#   TEMPLATE                the prompt of training and of all questions, the base's too: the answers differ by the
#                           training alone. med_template for BenTsao's families, otherwise the backbone's own
# Arguments go on to each `medchat sft`: sh scripts/compare-methods.sh --num-epochs 3
# A method that has been trained is not trained again: run it again to go on.
set -eu
. "$(dirname -- "$0")/program.sh"
backbone=${BACKBONE:-llama}
model=${MODEL:-llama-7b}
data=${DATA:-data/llama_data.json}
output=${OUTPUT:-results/methods}
methods=${METHODS:-lora qlora adapter}
case $backbone in
    llama | bloom | huozi) template=${TEMPLATE-med_template} ;;
    *) template=${TEMPLATE-} ;;
esac

# measure NAME ARGUMENT...: choice questions to the base, with an adapter over it or without.
measure() {
    name=$1
    shift
    run eval choice --backbone "$backbone" --model "$model" "$@" ${QUESTIONS:+--file "$QUESTIONS"} \
        ${template:+--template "$template"} --output "$output/eval-$name" --overwrite
}

for method in $methods; do
    [ -e "$output/$method/manifest.json" ] ||
        run sft --backbone "$backbone" --model "$model" --method "$method" --data "$data" \
            ${template:+--template "$template"} --output "$output/$method" "$@"
done
measure base
set -- "base=$output/eval-base"
for method in $methods; do
    measure "$method" --adapter "$output/$method"
    set -- "$@" "$method=$output/eval-$method"
done
become eval compare "$@"
