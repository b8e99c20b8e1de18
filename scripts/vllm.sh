#!/bin/sh
# Serves a merged model with vLLM on this machine, for `medchat chat --backbone remote`.
#   sh scripts/vllm.sh FOLDER [PORT]      FOLDER: what `medchat export merge` wrote
# vLLM is not installed with MedChat: it wants a torch of its own, so give it an environment of its own.
set -eu
folder=${1:?sh scripts/vllm.sh FOLDER [PORT]} port=${2:-8000}
if ! command -v vllm >/dev/null 2>&1; then
    echo '错误：找不到 vllm / vllm was not found' >&2
    echo '下一步 / Next: python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm && PATH=~/vllm/bin:$PATH' >&2
    exit 3
fi
name=$(basename -- "$folder")
echo "medchat chat --backbone remote --model http://127.0.0.1:$port/v1#$name" >&2
# Its own machine alone may ask: vLLM knows no users. It sends figures on its use home unless told otherwise.
VLLM_NO_USAGE_STATS=1 exec vllm serve "$folder" --served-model-name "$name" --host 127.0.0.1 --port "$port" --dtype float16
