"""What a LoRA folder of peft holds, whatever its age, learned without torch and without reading a weight.

    adapter = open_lora(folder)     # adapter_config.json and the headers of adapter_model.{safetensors,bin}
    adapter.settings, adapter.saved, adapter.module_shapes()

`base_model_name_or_path` is read of what our own trainer wrote alone: in published adapters it is a path of the
machine that trained them, where it is anything (docs/specs/models.md, "Adapters"). Nor are keys that peft dropped since
(`enable_lora`, `merge_weights`), unless they ask for something that plain LoRA is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medchat.checkpoints.elsewhere import ADAPTER_CONFIG, other_than_asked
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.layout import Candidates, open_checkpoint, require_folder
from medchat.checkpoints.lora_targets import is_rank, is_scale, wrong_choices
from medchat.checkpoints.weight_files import Checkpoint, names
from medchat.errors import CheckpointError
from medchat.language import say

FLAG = "--adapter"
CONFIG_FILE = ADAPTER_CONFIG
WEIGHT_FILES: Candidates = (("adapter_model.safetensors", "safetensors"), ("adapter_model.bin", "bin"))
#: Our own trainer's key: the name of the template that the adapter was trained with.
TEMPLATE_KEY = "medchat_template"
#: The keys that reach peft. Everything else in the file either changes nothing here or is refused.
_PASSED_KEYS = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "use_rslora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
)
#: Keys that make an adapter more than plain LoRA, with the value that does not. None, False and empty
#: values never do. `enable_lora` chose parts of a fused layer in peft 0.1.
_PLAIN_VALUES: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "enable_lora": None,
    "lora_bias": False,
    "use_dora": False,
    "use_qalora": False,
    "use_bdlora": None,
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "kasa_config": None,
    "velora_config": None,
    "monteclora_config": None,
}
_LORA_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>A|B)\.weight")
#: Larger than the empty state dicts that early training scripts saved (443 bytes), far below any weights.
_EMPTY_BYTES = 2048


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """An adapter folder whose configuration and headers were read.

    `settings` are what peft's LoraConfig takes. `saved` are whole tensors stored beside the LoRA
    matrices (peft's `modules_to_save`: the embeddings and head of a grown vocabulary), by the model's
    own name; `template` is what our own trainer wrote of the template it used, else "", and `base` of the
    model's folder: its name.
    """

    folder: Path
    checkpoint: Checkpoint
    headers: Mapping[str, TensorHeader]
    settings: Mapping[str, Any]
    saved: Mapping[str, TensorHeader]
    template: str = ""
    base: str = ""

    @property
    def weight_file(self) -> Path:
        """The file of the weights."""
        return self.checkpoint.files[0]

    def module_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Return (outputs, inputs, rank) of each module that has both matrices, by the model's name."""
        matrices: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, header in self.headers.items():
            found = _LORA_TENSOR.fullmatch(name)
            if found and len(header.shape) == 2:
                matrices.setdefault(found["module"], {})[found["matrix"]] = header.shape
        return {
            module: (pair["B"][0], pair["A"][1], pair["A"][0])
            for module, pair in matrices.items()
            if len(pair) == 2
        }


def is_lora_folder(folder: Path) -> bool:
    """Say whether the folder calls itself an adapter of peft."""
    return (folder / CONFIG_FILE).exists()


def open_lora(folder: Path) -> LoraAdapter:
    """Open an adapter folder. Raises CheckpointError: missing, damaged, empty, or more than plain LoRA."""
    require_folder(folder, FLAG)
    if not is_lora_folder(folder):
        raise other_than_asked(folder, FLAG) or CheckpointError(
            say(f"这里没有适配器：缺少 {CONFIG_FILE}", f"this is not an adapter: {CONFIG_FILE} is missing"),
            say(
                f"请检查 {FLAG} 的路径；完整模型请用 --model",
                f"check {FLAG}; a whole model goes to --model",
            ),
            where=str(folder),
        )
    stated = read_json_object(folder / CONFIG_FILE)
    checkpoint = open_checkpoint(folder, WEIGHT_FILES, FLAG)
    headers = _read_headers(checkpoint)
    template = stated.get(TEMPLATE_KEY)
    settings = _settings(stated, headers, folder)
    saved = _saved(stated.get("modules_to_save") or [], headers, checkpoint)
    named = template if isinstance(template, str) else ""
    return LoraAdapter(folder, checkpoint, headers, settings, saved, named, stated_base_name(stated))


def stated_base_name(stated: Mapping[str, Any]) -> str:
    """Return the name of the base that our own trainer wrote into adapter_config.json, "" in any other's."""
    template, base = stated.get(TEMPLATE_KEY), stated.get("base_model_name_or_path")
    return base if template and isinstance(template, str) and isinstance(base, str) else ""


def _read_headers(checkpoint: Checkpoint) -> dict[str, TensorHeader]:
    small = checkpoint.file_bytes < _EMPTY_BYTES
    try:
        headers = read_headers(checkpoint)
    except CheckpointError:
        if not small:
            raise
        headers = {}
    if headers:
        return headers
    file = checkpoint.files[0]
    raise CheckpointError(
        say(
            f"适配器是空的：{file.name} 只有 {checkpoint.file_bytes} 字节，里面没有权重",
            f"the adapter is empty: {file.name} has {checkpoint.file_bytes} bytes and no weights in them",
        ),
        say(
            "这是早期训练脚本的已知问题（保存时权重已被清空）；请重新下载，或重新训练并保存",
            "early training scripts are known to save such files: download it again, or train and save again",
        ),
        where=str(file),
    )


def _saved(
    modules: Any, headers: Mapping[str, TensorHeader], checkpoint: Checkpoint
) -> dict[str, TensorHeader]:
    """Return the tensors of the modules that were saved whole. Raises CheckpointError if one is not there."""
    saved: dict[str, TensorHeader] = {}
    for module in modules if isinstance(modules, list) else [modules]:
        own = {name: header for name, header in headers.items() if name.split(".")[-2:-1] == [module]}
        if not own:
            raise CheckpointError(
                say(
                    f"适配器缺少 modules_to_save 所列的 {module}",
                    f"the adapter lacks {module}, which its modules_to_save lists",
                ),
                say("请重新下载这个适配器", "download the adapter again"),
                where=str(checkpoint.files[0]),
            )
        saved |= own
    return saved


def _settings(stated: Mapping[str, Any], headers: Mapping[str, TensorHeader], folder: Path) -> dict[str, Any]:
    """Return the settings of a plain LoRA. Raises CheckpointError for whatever else peft can save."""
    odd = [
        f"{key} = {stated[key]!r}"[:80]
        for key, plain in _PLAIN_VALUES.items()
        if stated.get(key, plain) not in (plain, None, False, [], {})
    ]
    settings = {key: stated[key] for key in _PASSED_KEYS if stated.get(key) is not None}
    if not settings.get("target_modules"):
        # The library's own table once filled it in; the tensors say the same.
        settings["target_modules"] = _modules(headers)
    wrong = _wrong_kinds(settings)
    odd += [f"{key} = {settings.get(key)!r}"[:80] for key in wrong]
    if odd:
        remedy = say("支持 peft 的普通 LoRA", "plain LoRA adapters of peft are")
        if "target_modules" in wrong and isinstance(settings["target_modules"], str):
            found = json.dumps(_modules(headers)[:8])
            remedy = say(f"请把 target_modules 写成列表：{found}", f"write target_modules as a list: {found}")
        raise CheckpointError(
            say(f"不支持这种适配器：{names(odd)}", f"this kind of adapter is not supported: {names(odd)}"),
            remedy,
            where=str(folder / CONFIG_FILE),
        )
    return settings


def _modules(headers: Mapping[str, TensorHeader]) -> list[str]:
    """Return what the modules with LoRA matrices are called, without where they stand."""
    found = (_LORA_TENSOR.fullmatch(name) for name in headers)
    return sorted({one["module"].split(".")[-1] for one in found if one})


def _wrong_kinds(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value no adapter of peft could have."""
    wrong = [] if is_rank(settings.get("r")) else ["r"]
    wrong += [] if is_scale(settings.get("lora_alpha", 8)) else ["lora_alpha"]
    if not settings["target_modules"]:
        return [*wrong, "target_modules"]
    return [*wrong, *wrong_choices(settings)]
