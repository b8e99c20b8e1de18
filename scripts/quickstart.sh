#!/bin/sh
# Everything from a fresh clone to a conversation: installs MedChat, trains the demo's miniature model, opens a chat.
# Arguments go on to `medchat demo`.
set -eu
. "$(dirname -- "$0")/environment.sh"
install ""
echo "+ medchat demo $*" >&2
exec "$venv/bin/medchat" demo "$@"
