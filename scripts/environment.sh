# Sourced by the other scripts: makes the virtual environment and installs MedChat into it.
# Needs python3 (3.11 or newer) with its venv module, nothing else.
#   MEDCHAT_VENV    where the environment lives (default: .venv beside this folder)
#   PYTHON          which interpreter makes it (default: the first suitable python3 found)

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
venv=${MEDCHAT_VENV:-$root/.venv}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    echo '错误：需要 Python 3.11 或更高版本及其 venv 模块 / Python 3.11+ with its venv module is needed' >&2
    echo '下一步：安装后重试，或用 PYTHON=/path/to/python3 指定 / Next: install it, or set PYTHON=/path/to/python3' >&2
    return 1
}

# install EXTRAS: an editable install under the tested versions, skipped when nothing has changed since the last one.
install() {
    wanted="$(cat setup.py constraints.txt medchat/builtin.py medchat/inference/cpu_engine/native/* | cksum) $root"
    # An environment with more extras serves those who need fewer.
    for extras in "$1" "[test]"; do
        if [ -x "$venv/bin/medchat" ] && [ "$(cat "$venv/medchat-installed" 2>/dev/null)" = "$extras $wanted" ]; then
            return 0
        fi
    done
    # Without pip it is the rest of an attempt that was interrupted.
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        echo "+ $python -m venv --clear $venv" >&2
        "$python" -m venv --clear "$venv"
    fi
    echo "+ pip install -c constraints.txt -e .$1" >&2
    echo '（torch 等依赖要下载几百 MB 以上，通常需要几分钟 / the download is some hundred MB or more: a few minutes）' >&2
    # pip's progress is for people; logs get what goes wrong.
    if [ -t 2 ]; then quiet=; else quiet=--quiet; fi
    "$venv/bin/python" -m pip install --disable-pip-version-check $quiet -c constraints.txt -e ".$1" >&2
    printf '%s' "$1 $wanted" > "$venv/medchat-installed"
}
