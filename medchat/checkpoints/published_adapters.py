"""The published adapters, and which base each was trained on. No torch here.

LLaMA and Alpaca adapters have equal shapes, as have those for Bloom and Huozi, so a wrong base loads
without a murmur and answers nonsense. What tells them apart is this table: by the weights' own hash where
it is known, else by the folder's name together with the size (rank, layers, width). Figures:
docs/specs/models.md, "Adapters".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.checkpoints.read_once import read_once
from medchat.checkpoints.stated_base import stated_base_note
from medchat.errors import CheckpointError
from medchat.hashing import git_blob_of
from medchat.language import say

#: The bases that adapters are paired with, as a reader knows them.
BASES: Mapping[str, str] = {
    "llama": "LLaMA-7B",
    "chinese-llama": "Chinese-LLaMA-7B",
    "chinese-alpaca": "Chinese-Alpaca-7B",
    "bloom": "Bloom-7B",
    "huozi": "活字 Huozi 1.0",
}
#: Files beyond this are never one of those whose hash is known (16.8 MB each).
_HASHED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Signature:
    """The size of a published adapter: what its tensors must look like to be it."""

    modules: tuple[str, ...]
    layers: int
    rank: int
    inputs: int

    def fits(self, adapter: LoraAdapter) -> bool:
        """Say whether the adapter's tensors have exactly this size."""
        shapes = adapter.module_shapes()
        return (
            len(shapes) == self.layers * len(self.modules)
            and {name.rpartition(".")[2] for name in shapes} == set(self.modules)
            and all(shape[1:] == (self.inputs, self.rank) for shape in shapes.values())
        )


@dataclass(frozen=True, slots=True)
class KnownAdapter:
    """One published adapter. `blob` is the git blob id of its adapter_model.bin ("" if not known).

    `signature` is None if the size is not known: then the name alone tells it.
    """

    name: str
    source: str
    base: str
    template: str
    signature: Signature | None = None
    blob: str = ""


_LLAMA = Signature(("q_proj", "v_proj"), layers=32, rank=8, inputs=4096)
_BLOOM = Signature(("query_key_value",), layers=30, rank=8, inputs=4096)

KNOWN_ADAPTERS = (
    KnownAdapter(
        "lora-llama-med",
        "thinksoso/lora-llama-med",
        "llama",
        "med_template",
        _LLAMA,
        "fa3a15db3eecccfbf65516d0ccbe156ff96f17b6",
    ),
    KnownAdapter(
        "lora-llama-literature",
        "lovepon/lora-llama-literature",
        "llama",
        "literature_template",
        _LLAMA,
        "13ca861ae992f01973376821af6359a0bb8b6a59",
    ),
    KnownAdapter(
        "lora-alpaca-med",
        "lovepon/lora-alpaca-med",
        "chinese-alpaca",
        "med_template",
        _LLAMA,
        "795d9094b48c3a18e025a3719a9698863e8282c3",
    ),
    KnownAdapter(
        "lora-alpaca-med-alldata",
        "lovepon/lora-alpaca-med-alldata",
        "chinese-alpaca",
        "med_alldata",
        _LLAMA,
        "0a0aa8e18c6727bd1281dcc609e01c12de671e39",
    ),
    KnownAdapter("lora-bloom-med-bloom", "lovepon/lora-bloom-med-bloom", "bloom", "bloom_deploy", _BLOOM),
    # On Baidu only, and nobody wrote down its size.
    KnownAdapter("lora-huozi-med", "SCIR-HI/Huatuo-Llama-Med-Chinese", "huozi", "bloom_deploy"),
    # The English Alpaca that the original compares with, and Chinese-Alpaca before it is merged.
    KnownAdapter("alpaca-lora-7b", "tloen/alpaca-lora-7b", "llama", "alpaca"),
    KnownAdapter("chinese-alpaca-lora-7b", "hfl/chinese-alpaca-lora-7b", "llama", "alpaca"),
    KnownAdapter("chinese-llama-lora-7b", "hfl/chinese-llama-lora-7b", "llama", "ori_template"),
)


@dataclass(frozen=True, slots=True)
class PublishedMatch:
    """Which published adapter a folder holds. `by_hash`: its weights are byte for byte the published ones."""

    known: KnownAdapter
    by_hash: bool
    folder: Path

    @property
    def mislabelled(self) -> bool:
        """Whether the folder carries the name of another published adapter than the one it holds."""
        named = _by_name(self.folder)
        return named is not None and named != self.known


def match_published(adapter: LoraAdapter) -> PublishedMatch | None:
    """Return which published adapter this is, or None. Hashes the file where that can tell."""
    blob = _blob_of(adapter)
    for known in KNOWN_ADAPTERS:
        if known.blob and known.blob == blob:
            return PublishedMatch(known, True, adapter.folder)
    named = _by_name(adapter.folder)
    if named and (named.signature is None or named.signature.fits(adapter)):
        return PublishedMatch(named, False, adapter.folder)
    return None


def adapters_for(base: str) -> tuple[str, ...]:
    """Return the names of the published adapters that were trained on `base`, a key of BASES."""
    return tuple(known.name for known in KNOWN_ADAPTERS if known.base == base)


def check_base(adapter: LoraAdapter, base: str, model: Path) -> tuple[str, ...]:
    """Hold the adapter against `base`, a key of BASES or words for another; return what the user should know.

    Raises CheckpointError if it is a published adapter trained on another base. One that is not in the
    table loads with a note: what it states of its base, held against the folder `model`, if anything.
    """
    found, title = match_published(adapter), BASES.get(base, base)
    name = adapter.folder.resolve().name
    if found is None and (note := stated_base_note(adapter, model)):
        return (note,)
    if found is None:
        return (
            say(
                f"适配器 {name} 不在已知列表中，无法核对它是否在 {title} 上训练",
                f"adapter {name} is not a published one: whether it was trained on {title} is not known",
            ),
        )
    known = found.known
    if known.base != base:
        raise _wrong_base(found, title)
    if found.mislabelled:
        return (
            say(
                f"适配器目录名为 {name}，内容其实是 {known.name}",
                f"the adapter folder is named {name} but holds {known.name}",
            ),
        )
    return (say(f"适配器：{known.name}", f"adapter: {known.name}"),)


def _wrong_base(found: PublishedMatch, title: str) -> CheckpointError:
    known, wanted = found.known, BASES[found.known.base]
    named = say("（按目录名判断）", " (going by the folder's name)")
    if found.by_hash:
        named = ""
    elif known.signature:
        named = say("（按目录名和大小判断）", " (going by the folder's name and size)")
    return CheckpointError(
        say(
            f"适配器与模型不匹配：{known.name}{named} 是在 {wanted} 上训练的，而这个模型是 {title}",
            f"the adapter does not fit: {known.name}{named} was trained on {wanted}, this is {title}",
        ),
        say(
            f"请用 --model 指定 {wanted}" + ("" if found.by_hash else "；若这是您自己训练的，请给目录改名"),
            f"pass {wanted} as --model"
            + ("" if found.by_hash else ", or rename the folder if it is your own"),
        ),
        where=str(found.folder),
    )


def _by_name(folder: Path) -> KnownAdapter | None:
    name = folder.resolve().name.lower()
    return next((known for known in KNOWN_ADAPTERS if known.name == name), None)


def _blob_of(adapter: LoraAdapter) -> str:
    """Return git's id of the weight file as a blob, "" for files that are none of the known ones."""
    file = adapter.weight_file
    size = file.stat().st_size
    if size > _HASHED_BYTES or adapter.checkpoint.format != "bin":
        return ""
    return read_once(git_blob_of, file)
