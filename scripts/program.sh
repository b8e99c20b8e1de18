# Sourced by the scripts that run MedChat: finds the program, and shows each command before it runs.
# The program is `medchat` from PATH, else the one in the environment that quickstart.sh made.

# The folder is found before anything changes the working directory.
scripts=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if command -v medchat >/dev/null 2>&1; then
    program=medchat
else
    program=${MEDCHAT_VENV:-$scripts/../.venv}/bin/medchat
fi
if ! command -v "$program" >/dev/null 2>&1; then
    echo '错误：找不到 medchat / medchat was not found' >&2
    echo '下一步：sh scripts/quickstart.sh，或 / Next: sh scripts/quickstart.sh, or: pip install -c constraints.txt -e .' >&2
    exit 3
fi

# show WORD...: print a command to stderr so that it can be copied and run.
show() {
    line=+
    for word in "$@"; do
        case $word in
            '' | *[!A-Za-z0-9_./:=@%+,-]*)
                word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
                ;;
        esac
        line="$line $word"
    done
    printf '%s\n' "$line" >&2
}

# run WORD...: show and run `medchat WORD...`.
run() {
    show medchat "$@"
    "$program" "$@"
}

# become WORD...: the same as the script's last command, so that signals reach it and its exit code is the script's.
become() {
    show medchat "$@"
    exec "$program" "$@"
}
