"""Task files of lm-evaluation-harness, read as plain data: what would run code or fetch something is refused by name.

The harness itself is given the mapping that comes out, never the file. What is not in the lists of this module is
refused: a field that a later version of the harness understands is not let through unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.plugin_kit import CheckpointError, DataError, read_regular, say

if TYPE_CHECKING:
    import yaml

#: The most that a task file may take.
MAX_TASK_BYTES = 1 << 20
#: How deep task files may include each other.
_MAX_DEPTH = 8
#: The metrics of each kind of task that need neither code from elsewhere nor what no model here states.
METRICS: Mapping[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "f1", "mcc", "brier_score"),
    "generate_until": ("exact_match", "bleu", "chrf", "chrf++", "ter"),
}
_FILTERS = (
    *("take_first", "take_first_k", "majority_vote", "regex", "multi_choice_regex", "regex_pos"),
    *("remove_whitespace", "lowercase", "uppercase", "map", "format_span"),
)
_FIELDS = (
    *("task", "task_alias", "tag", "group", "metadata", "include", "output_type", "repeats", "num_fewshot"),
    *("dataset_path", "dataset_name", "dataset_kwargs"),
    *("training_split", "validation_split", "test_split", "fewshot_split", "fewshot_config"),
    *("description", "doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix"),
    *("target_delimiter", "fewshot_delimiter", "metric_list", "filter_list", "generation_kwargs"),
    *("should_decontaminate", "doc_to_decontamination_query", "unsafe_code"),
)
_FEWSHOT_FIELDS = (
    *("sampler", "split", "samples", "fewshot_indices", "doc_to_text", "doc_to_choice", "doc_to_target"),
    *("gen_prefix", "fewshot_delimiter", "target_delimiter"),
)
_SAMPLERS = ("default", "first_n")
#: Fields that run code, import something or want several tasks, and what they are.
_REFUSED: Mapping[str, tuple[str, str]] = {
    "class": ("class 是 Python 类", "class is a Python class"),
    "custom_dataset": ("custom_dataset 是读取数据的代码", "custom_dataset is code that reads data"),
    "process_docs": ("process_docs 是代码", "process_docs is code"),
    "process_results": ("process_results 是代码", "process_results is code"),
    "use_prompt": ("use_prompt 从别处取提示", "use_prompt takes its prompt from elsewhere"),
    "doc_to_image": ("doc_to_image 要图像", "doc_to_image wants pictures"),
    "doc_to_audio": ("doc_to_audio 要声音", "doc_to_audio wants sound"),
    "task_list": ("task_list 是一组任务", "task_list is a group of tasks"),
}
#: The tags of YAML that say what plain data is.
_PLAIN_TAGS = (
    "!",
    *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")),
)
_LOCAL = ("json", "csv")


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task as data. `files` are the file and all that it includes, with their digests.

    `data` are the files of records that it names, by split; empty where it names a data set of a hub: `dataset`.
    """

    path: Path
    config: Mapping[str, Any]
    files: Mapping[Path, str]
    data: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.config["task"])

    @property
    def output_type(self) -> str:
        """The kind of task: a key of `METRICS`."""
        return str(self.config.get("output_type", "generate_until"))

    @property
    def dataset(self) -> str:
        """The data set that the task names, for people."""
        names = (self.config.get("dataset_path"), self.config.get("dataset_name"))
        return " ".join(str(name) for name in names if name)


def read_task_file(path: Path) -> TaskFile:
    """Read a task file and what it includes from its own folder.

    Raises CheckpointError where one cannot be read, DataError for one that is no YAML, or that would run code, fetch
    something, leave the folder, or wants what MedChat does not measure.
    """
    files: dict[Path, str] = {}
    home = path.resolve().parent
    config, places = _merged(path.resolve(), home, files)
    for name in config:
        _require_field(name, config, places[name])
    place = f"{path}:1"
    if not isinstance(config.get("task"), str):
        raise _refused(place, ("没有写 task（任务名），或是一组任务", "no task is named, or a group of them"))
    task = TaskFile(path, config, files)
    if task.output_type not in METRICS:
        kinds, given = ", ".join(METRICS), task.output_type
        raise _refused(
            places.get("output_type", place),
            (f"output_type 是 {given}，只能是 {kinds}", f"output_type is {given}, none of {kinds}"),
        )
    _require_metrics(task, places.get("metric_list", place))
    _require_parts(config, places)
    return TaskFile(path, config, files, dict(_data_files(config, places, home)))


def _merged(
    path: Path, home: Path, files: dict[Path, str], depth: int = 0
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a file over those of the files that it includes, and where each field stands."""
    own, places = _fields_of(path, files)
    included = own.pop("include", [])
    merged: dict[str, Any] = {}
    where: dict[str, str] = {}
    for name in included if isinstance(included, list) else [included]:
        inner = _inside(name, path.parent, home, places["include"])
        if depth == _MAX_DEPTH:
            raise _refused(
                places["include"], ("include 层数太多，或互相包含", "include goes too deep, or in a circle")
            )
        fields, found = _merged(inner, home, files, depth + 1)
        merged |= fields
        where |= found
    return merged | own, where | places


def _fields_of(path: Path, files: dict[Path, str]) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        content = read_regular(path, MAX_TASK_BYTES)
    except OSError as error:
        raise CheckpointError(
            say(f"无法读取任务文件：{error.strerror}", f"cannot read the task file: {error.strerror}"),
            say("检查 --task-file 的路径", "check the path of --task-file"),
            where=str(path),
        ) from None
    import yaml  # `medchat eval` itself does without

    files[path] = hashlib.sha256(content).hexdigest()
    try:
        for event in yaml.parse(content, yaml.SafeLoader):
            _require_plain(event, path)
        fields = yaml.load(content, yaml.SafeLoader)
        root = yaml.compose(content, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise DataError(
            say("不是有效的 YAML", "not valid YAML") + f"：{getattr(error, 'problem', None) or error}",
            say("检查这一行", "check this line"),
            where=where,
        ) from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise _refused(f"{path}:1", ("不是由字段组成的任务", "not a task made of fields"))
    assert isinstance(root, yaml.MappingNode)
    return fields, {key.value: f"{path}:{key.start_mark.line + 1}" for key, _ in root.value}


def _require_plain(event: yaml.Event, path: Path) -> None:
    """Raise DataError for a tag, which would be code, and for an alias."""
    line = f"{path}:{event.start_mark.line + 1}"
    tag = getattr(event, "tag", None)
    if tag and tag not in _PLAIN_TAGS:
        code = f"{tag} {getattr(event, 'value', '')}".strip()
        raise _refused(line, (f"任务要运行代码：{code}", f"the task runs code: {code}"))
    if type(event).__name__ == "AliasEvent":
        raise _refused(line, ("任务用了 YAML 别名（*）", "the task uses an alias of YAML (*)"))


def _require_field(name: str, config: Mapping[str, Any], place: str) -> None:
    if name in _REFUSED:
        raise _refused(place, _REFUSED[name])
    if name not in _FIELDS:
        raise _refused(place, (f"不认识的字段 {name}", f"a field that is not known: {name}"))
    if name == "unsafe_code" and config[name]:
        raise _refused(place, ("unsafe_code：任务要运行代码", "unsafe_code: the task runs code"))
    if name == "repeats" and config[name] != 1:
        raise _refused(place, ("repeats：每题只回答一次", "repeats: each question is answered once"))


def _require_metrics(task: TaskFile, place: str) -> None:
    known = METRICS[task.output_type]
    for one in _mappings(task.config.get("metric_list"), "metric_list", place):
        name = one.get("metric")
        if one.get("hf_evaluate"):
            raise _refused(
                place,
                (f"hf_evaluate：指标 {name} 是从网上取来的代码", f"hf_evaluate: {name} is fetched code"),
            )
        if name not in known:
            raise _refused(
                place,
                (
                    f"不能计算指标 {name}（可用：{'、'.join(known)}）",
                    f"the metric {name} cannot be measured (there are {', '.join(known)})",
                ),
            )
        if not isinstance(one.get("aggregation", ""), str):
            raise _refused(place, ("aggregation 应当是名称", "aggregation must be a name"))


def _require_parts(config: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Raise DataError for anything in the nested fields that is not known."""
    for one in _mappings(config.get("filter_list"), "filter_list", places.get("filter_list", "")):
        for step in _mappings(one.get("filter"), "filter", places["filter_list"]):
            if step.get("function") not in _FILTERS:
                name = step.get("function")
                raise _refused(
                    places["filter_list"], (f"不认识的过滤 {name}", f"a filter that is not known: {name}")
                )
    few = config.get("fewshot_config") or {}
    place = places.get("fewshot_config", "")
    if not isinstance(few, dict):
        raise _refused(place, ("fewshot_config 应当是对象", "fewshot_config must be a mapping"))
    for name in few:
        if name not in _FEWSHOT_FIELDS:
            raise _refused(place, (f"fewshot_config 里的 {name}", f"{name} in fewshot_config"))
    if few.get("sampler", "default") not in _SAMPLERS:
        raise _refused(place, (f"sampler {few['sampler']}", f"the sampler {few['sampler']}"))


def _data_files(
    config: Mapping[str, Any], places: Mapping[str, str], home: Path
) -> Iterator[tuple[str, list[Path]]]:
    """Yield the local files of records by split. Raises DataError for one elsewhere."""
    if config.get("dataset_path") not in _LOCAL:
        return
    place = places.get("dataset_kwargs", places["dataset_path"])
    given = config.get("dataset_kwargs") or {}
    if not isinstance(given, dict) or set(given) != {"data_files"}:
        raise _refused(
            place, ("dataset_kwargs 里只能有 data_files", "dataset_kwargs must hold data_files alone")
        )
    by_split = given["data_files"]
    # As the library of data sets has it: files without a split are for training.
    for split, names in (by_split if isinstance(by_split, dict) else {"train": by_split}).items():
        yield (
            str(split),
            [_inside(name, home, home, place) for name in (names if isinstance(names, list) else [names])],
        )


def _inside(name: object, folder: Path, home: Path, place: str) -> Path:
    """Return the path of a file that is named in a task. Raises DataError where it is not under `home`."""
    if not isinstance(name, str) or "://" in name or "::" in name:
        raise _refused(place, (f"不是本地文件：{name}", f"not a file of this machine: {name}"))
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):
        path = Path("/")
    if not path.is_relative_to(home):
        raise _refused(
            place, (f"{name} 不在任务文件的目录里", f"{name} is not in the folder of the task file")
        )
    return path


def _mappings(value: object, name: str, place: str) -> list[dict[str, Any]]:
    listed: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, dict) for one in listed):
        raise _refused(place, (f"{name} 应当由对象组成", f"{name} must be made of mappings"))
    return listed


def _refused(place: str, what: tuple[str, str]) -> DataError:
    return DataError(
        say(*what),
        say("只运行不含代码、数据在本机的任务", "only tasks without code, on data of this machine, are run"),
        where=place,
    )
