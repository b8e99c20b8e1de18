#!/bin/sh
# Everything from a fresh clone to a conversation: installs MedChat, trains the demo's miniature model, opens a chat.
# Arguments go on to `medchat demo`.
set -eu
. "$(dirname -- "$0")/environment.sh"
install ""
echo "以后使用 medchat 先执行 / to use medchat later, first run: . $venv/bin/activate" >&2
echo "+ medchat demo $*" >&2
exec "$venv/bin/medchat" demo "$@"
