"""Weights of other programs: what a file or folder is that no family here reads, and the way on. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from medchat.checkpoints.weight_files import first_bytes
from medchat.errors import CheckpointError
from medchat.language import say


def _through_a_server(path: Path) -> str:
    command = f"llama-server -m {shlex.quote(str(path))} --port 8080"
    use = "--backbone remote --model http://127.0.0.1:8080/v1"
    return say(
        f"请用原始权重（medchat models list）；或先运行 {command}，再用 {use}",
        f"use the original weights (medchat models list); or run {command} and then pass {use}",
    )


def _converted(path: Path) -> str:
    folder = path.parent
    places = f"--input_dir {shlex.quote(str(folder))} --output_dir {shlex.quote(f'{folder}-hf')}"
    script = f"python convert_llama_weights_to_hf.py {places} --model_size 7B"
    return say(
        f"需先转换（脚本在 transformers 的源码仓库）：{script}；或 medchat models pull llama-7b",
        f"convert it first (the script is in transformers' repository): {script}; or medchat models pull llama-7b",
    )


def _unquantised(path: Path | None = None) -> str:
    return say(
        "请用未量化的权重，加 --quantize int4 或 int8 省内存；或由 vLLM 等程序提供服务，用 --backbone remote 连接",
        "use the weights before that with --quantize int4 or int8; or serve them by vLLM or the like and use "
        "--backbone remote",
    )


def _original(path: Path) -> str:
    return say(
        "请下载同一模型的 safetensors 或 pytorch_model.bin 版本（medchat models list）",
        "download the same model as safetensors or pytorch_model.bin (medchat models list)",
    )


def _gathered_from_zero(path: Path) -> str:
    folder = shlex.quote(str(path.parent))
    return say(
        f"请先合并，再用得到的权重：python {folder}/zero_to_fp32.py {folder} 新目录",
        f"gather it first and use the result: python {folder}/zero_to_fp32.py {folder} NEW_FOLDER",
    )


def _gathered_from_fsdp(path: Path) -> str:
    folder = shlex.quote(str(path.parent))
    return say(
        f"请先合并，再用得到的权重：accelerate merge-weights {folder} 新目录",
        f"gather it first and use the result: accelerate merge-weights {folder} NEW_FOLDER",
    )


def _unpacked(path: Path) -> str:
    place = shlex.quote(str(path))
    command = f"unzip {place}" if path.suffix.lower() == ".zip" else f"tar -xf {place}"
    return say(f"请先解压，再指定解压出的目录：{command}", f"unpack it and name the folder: {command}")


def _fetched_again(path: Path) -> str:
    return say(
        "请等下载完成，或重新下载；已知的权重：medchat models pull 名称",
        "let the download finish, or start it again; known weights: medchat models pull NAME",
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """Weights of one other program: their names, patterns of file names, first bytes, and the way on."""

    zh: str
    en: str
    patterns: tuple[str, ...]
    way: Callable[[Path], str]
    starts: tuple[bytes, ...] = ()

    def holds(self, name: str) -> bool:
        """Say whether a file of that name is one of this kind."""
        return any(fnmatchcase(name.lower(), pattern) for pattern in self.patterns)


#: In the order they are looked for: the surer signs first.
_KINDS = (
    _Kind(
        "llama.cpp 的量化权重（GGUF/GGML）",
        "weights for llama.cpp (GGUF or GGML)",
        ("*.gguf", "*.ggml", "ggml-*.bin", "*-ggml-*.bin", "*.ggmlv3.*.bin"),
        _through_a_server,
        (b"GGUF", b"FUGG", b"lmgg", b"fmgg", b"tjgg", b"algg"),
    ),
    _Kind(
        "Meta 发布的原始 LLaMA 权重（consolidated.*.pth）",
        "LLaMA's original weights as Meta published them (consolidated.*.pth)",
        ("consolidated.*.pth", "consolidated.pth", "consolidated*.safetensors"),
        _converted,
    ),
    _Kind(
        "DeepSpeed ZeRO 的分片检查点",
        "a checkpoint in DeepSpeed's ZeRO shards",
        ("zero_to_fp32.py", "*_optim_states.pt", "*mp_rank_*_model_states.pt"),
        _gathered_from_zero,
    ),
    _Kind("FSDP 的分片检查点", "a checkpoint in FSDP's shards", ("*.distcp",), _gathered_from_fsdp),
    _Kind(
        "GPTQ 或 AWQ 量化的权重",
        "weights quantised by GPTQ or AWQ",
        (
            *(
                "quantize_config.json",
                "quant_config.json",
                "gptq_model*",
                "*-gptq.safetensors",
                "*-awq.safetensors",
            ),
            *("*-4bit-*g.safetensors", "*-8bit-*g.safetensors", "*-4bit-*g.pt", "*4bit*.no-act-order.*"),
        ),
        _unquantised,
    ),
    _Kind("Megatron 的检查点", "a checkpoint of Megatron", ("model_optim_rng.pt",), _original),
    _Kind("ONNX 模型", "an ONNX model", ("*.onnx", "*.onnx_data"), _original),
    _Kind("OpenVINO 模型", "an OpenVINO model", ("openvino_*.xml", "openvino_*.bin"), _original),
    _Kind("TensorRT 引擎", "a TensorRT engine", ("*.engine", "*.plan"), _original),
    _Kind("MLX 权重", "weights for MLX", ("weights.npz", "weights.*.npz"), _original),
    _Kind("Core ML 模型", "a Core ML model", ("*.mlpackage", "*.mlmodel", "*.mlmodelc"), _original),
    _Kind("NeMo 模型", "a NeMo model", ("*.nemo",), _original),
    _Kind("MNN 模型", "an MNN model", ("*.mnn", "*.mnn.weight"), _original),
    _Kind(
        "TensorFlow 或 Flax 的权重",
        "weights for TensorFlow or Flax",
        ("*.h5", "*.msgpack", "*.ckpt.index", "*.ckpt.data-*", "*.tflite", "saved_model.pb"),
        _original,
    ),
    _Kind(
        "没有下载完的文件",
        "a file whose download is not finished",
        ("*.incomplete", "*.aria2", "*.crdownload", "*.part", "*.downloading", "*.!qb", "*.xltd"),
        _fetched_again,
    ),
    _Kind(
        "压缩包",
        "an archive",
        ("*.zip", "*.tar", "*.tar.gz", "*.tgz", "*.tar.xz", "*.tar.bz2", "*.tar.zst", "*.7z", "*.rar"),
        _unpacked,
    ),
    _Kind(
        "其他程序的 torch 检查点",
        "a torch checkpoint of another program",
        ("*.pth", "*.pt", "*.ckpt"),
        _original,
    ),
)

#: What trainers keep beside weights to continue with: no weights themselves.
_OF_TRAINING = ("optimizer.", "scheduler.", "rng_state", "scaler.", "training_args.")
#: `quant_method` of config.json whose weights only its own library can read.
_QUANTISED: Mapping[str, str] = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "hqq": "HQQ",
    "aqlm": "AQLM",
    "vptq": "VPTQ",
    "quip": "QuIP#",
    "spqr": "SpQR",
    "higgs": "HIGGS",
    "eetq": "EETQ",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "bitnet": "BitNet",
    "compressed-tensors": "compressed-tensors",
    "torchao": "torchao",
    "quanto": "Quanto",
    "auto-round": "AutoRound",
    "mxfp4": "MXFP4",
}
#: Last parts of tensor names that only such weights have, the surer ones first.
_QUANTISED_TENSORS: Mapping[str, str] = {
    "qweight": "GPTQ / AWQ",
    "q_weight": "EXL2",
    "trellis": "EXL3",
    "W_q": "HQQ",
    "SCB": "bitsandbytes int8",
    "absmax": "bitsandbytes int4",
    "quant_map": "bitsandbytes int4",
    "codebooks": "AQLM",
    "weight_packed": "compressed-tensors",
    "weight_scale_inv": "FP8",
}


def foreign_file(path: Path) -> CheckpointError | None:
    """Return what a file of another program is and the way on, going by its first bytes and its name."""
    try:
        start = first_bytes(path)
    except OSError:
        return None
    by_start = (kind for kind in _KINDS if kind.starts and start.startswith(kind.starts))
    kind = next(by_start, None) or next((kind for kind in _KINDS if kind.holds(path.name)), None)
    return _refusal(kind, path) if kind else None


def foreign_in(folder: Path, entries: Iterable[str]) -> CheckpointError | None:
    """Return what a folder with these `entries` holds, if it is another program's weights, and the way on."""
    listed = sorted(name for name in entries if not name.startswith(_OF_TRAINING))
    for kind in _KINDS:
        for name in listed:
            if kind.holds(name):
                return _refusal(kind, folder / name)
    return None


def quantised_config(stated: Mapping[str, Any], where: Path) -> CheckpointError | None:
    """Return the refusal of weights that config.json, the object in `stated`, calls quantised by another library.

    bitsandbytes is not among them: it also is in the files of weights that were merged back.
    """
    table = stated.get("quantization_config")
    method = table.get("quant_method") if isinstance(table, Mapping) else None
    if isinstance(method, str) and method.lower() in _QUANTISED:
        return _quantised(_QUANTISED[method.lower()], where)
    packed = stated.get("quantization")
    if isinstance(packed, Mapping) and {"group_size", "bits"} <= set(packed):
        return _quantised("MLX", where)
    return None


def quantised_tensors(dtypes: Mapping[str, str], where: Path) -> CheckpointError | None:
    """Return the refusal of weights whose tensors, name -> dtype, another library packed; None for others."""
    for name, dtype in dtypes.items():
        found = _QUANTISED_TENSORS.get(name.rpartition(".")[2])
        if found or dtype.startswith("float8") or dtype == "uint32":
            return _quantised(found or ("FP8" if dtype.startswith("float8") else "MLX"), where)
    return None


def _refusal(kind: _Kind, path: Path) -> CheckpointError:
    zh = f" {kind.zh}" if kind.zh[0].isascii() else kind.zh
    return CheckpointError(
        say(
            f"{path.name} 是{zh}，不能直接加载",
            f"{path.name} is {kind.en}: it cannot be loaded here",
        ),
        kind.way(path),
        where=str(path),
    )


def _quantised(method: str, where: Path) -> CheckpointError:
    return CheckpointError(
        say(
            f"这是 {method} 量化的权重，不支持加载", f"these weights are quantised by {method}: not supported"
        ),
        _unquantised(),
        where=str(where),
    )
