# Sourced by the scripts that train: where model, data and output are, and one process or several.
#   MODEL DATA OUTPUT    from the environment, or as the first words of the command line in this order
#   NPROC                processes on this machine, one a GPU (torchrun starts them); 1 unless given
#   NNODES NODE_RANK MASTER_ADDR MASTER_PORT    several machines: the same command on each, NODE_RANK 0, 1, …
. "$(dirname -- "$0")/program.sh"

for count in "${NPROC:-1}" "${NNODES:-1}"; do
    case $count in
        '' | 0 | *[!0-9]*)
            echo "错误：NPROC 和 NNODES 应为正整数，不是 $count / NPROC and NNODES are whole numbers above 0, not $count" >&2
            echo '下一步 / Next: NPROC=2' >&2
            exit 2
            ;;
    esac
done

# launch WORD...: become `medchat WORD...`, in as many processes as were asked for.
launch() {
    if [ "${NPROC:-1}" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
        become "$@"
    fi
    # torchrun stands beside the program, in the same environment.
    torchrun=torchrun
    if [ "$program" != medchat ] || ! command -v torchrun >/dev/null 2>&1; then
        torchrun=$(dirname -- "$(command -v "$program")")/torchrun
    fi
    if ! command -v "$torchrun" >/dev/null 2>&1; then
        echo '错误：找不到 torchrun / torchrun was not found' >&2
        echo '下一步：去掉 NPROC 和 NNODES 用一个进程训练 / Next: train in one process, without NPROC and NNODES' >&2
        exit 3
    fi
    # torchrun would give each process one thread: each gets its share of the cores that this job may use.
    if [ -z "${OMP_NUM_THREADS-}" ]; then
        cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
        OMP_NUM_THREADS=$((cores > ${NPROC:-1} ? cores / ${NPROC:-1} : 1))
        export OMP_NUM_THREADS
    fi
    if [ "${NNODES:-1}" = 1 ] && [ -z "${MASTER_PORT-}" ]; then
        set -- --standalone --nproc-per-node "${NPROC:-1}" --module medchat "$@"
    else
        set -- --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "${NPROC:-1}" \
            --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" --module medchat "$@"
    fi
    show torchrun "$@"
    exec "$torchrun" "$@"
}
