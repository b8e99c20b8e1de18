"""Which files of a repository are needed: one set of weights, the vocabulary, the configuration, the licence.

A published repository often holds the same weights several times (safetensors, pickles, Flax, ggml), the
trainer's leftovers and code. None of that is fetched; code is never run from a model folder anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medchat.api import KnownWeights
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.weights.source import Listing, RemoteFile

#: A plain name: nothing from a listing may lead out of the folder or hide in it.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMPANIONS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|adapter_config"
    r"|vocab)\.json|merges\.txt|vocab\.txt|[\w-]+\.model|(MODEL_)?LICENSE(\.\w+)?|NOTICE(\.\w+)?"
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<ending>\.safetensors|\.bin)")
WEIGHT_ENDINGS = (".safetensors", ".bin")
#: Weights in the order of preference; for each the single file and the stem of the shards.
_BASES = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_ADAPTERS = (("adapter_model", ".safetensors"), ("adapter_model", ".bin"))


def is_plain(name: str) -> bool:
    """Say whether a file's name can be trusted to stay in its folder and to be seen there."""
    return bool(_PLAIN.fullmatch(name))


def is_weight(name: str) -> bool:
    """Say whether the name is that of a file with tensors."""
    return name.endswith(WEIGHT_ENDINGS)


def choose(listing: Listing, known: KnownWeights) -> tuple[RemoteFile, ...]:
    """Return the files to fetch for `known`, the small ones first.

    The weights are those that `known` names, else safetensors, else pickles, whole or in shards.
    Raises CheckpointError if the repository holds no complete set.
    """
    at_top = {file.name: file for file in listing.files if is_plain(file.name)}
    stated = [file.name for file in known.files if is_weight(file.name)]
    weights = stated or _best_weights(at_top, known)
    index = [name for name in (f"{_index_stem(weight)}.index.json" for weight in weights) if name in at_top]
    companions = [name for name in at_top if _COMPANIONS.fullmatch(name)]
    needed = [*companions, *(file.name for file in known.files), *index, *weights]
    missing = [name for name in needed if name not in at_top]
    if missing:
        raise _incomplete(listing, f"{missing[0]} " + say("不在其中", "is missing"))
    wanted = dict.fromkeys(needed)
    return tuple(sorted((at_top[name] for name in wanted), key=lambda file: (file.size, file.name)))


def _best_weights(at_top: Iterable[str], known: KnownWeights) -> list[str]:
    names = set(at_top)
    for stem, ending in _ADAPTERS if known.kind == "adapter" else _BASES:
        if shards := _shards(names, stem, ending):
            return shards
        if f"{stem}{ending}" in names:
            return [f"{stem}{ending}"]
    return []


def _shards(names: Iterable[str], stem: str, ending: str) -> list[str]:
    """Return the names of the shards of one complete set, or nothing."""
    for name in sorted(names):
        found = _SHARD.fullmatch(name)
        if found and found["stem"] == stem and found["ending"] == ending:
            total = int(found["total"])
            whole = [f"{stem}-{number:05}-of-{total:05}{ending}" for number in range(1, total + 1)]
            if set(whole) <= set(names):
                return whole
    return []


def _index_stem(weight: str) -> str:
    found = _SHARD.fullmatch(weight)
    return f"{found['stem']}{found['ending']}" if found else weight


def check_listing(listing: Listing, known: KnownWeights, chosen: Iterable[RemoteFile]) -> None:
    """Hold what would be fetched against what was published. Raises CheckpointError, before any download."""
    chosen = list(chosen)
    if not any(is_weight(file.name) for file in chosen):
        raise _incomplete(listing, say("没有一套完整的权重", "it holds no complete set of weights"))
    published = {file.name: file for file in known.files}
    for file in chosen:
        stated = published.get(file.name)
        wrong_size = stated and stated.size and file.size != stated.size
        wrong_hash = stated and stated.sha256 and file.sha256 and file.sha256 != stated.sha256
        if wrong_size or wrong_hash:
            raise CheckpointError(
                say(
                    f"{listing.repository} 中的 {file.name} 不是 {known.name} 公布的那个文件，没有下载",
                    f"{file.name} in {listing.repository} is not the one published as {known.name}; "
                    "nothing was downloaded",
                ),
                say(
                    "换一个来源（--repo、HF_ENDPOINT），或指定版本（--revision）",
                    "choose another source (--repo, HF_ENDPOINT) or a version (--revision)",
                ),
                where=f"{listing.repository}@{listing.revision}",
            )


def _incomplete(listing: Listing, detail: str) -> CheckpointError:
    return CheckpointError(
        say(f"仓库不完整：{detail}", f"the repository is incomplete: {detail}"),
        say("换一个来源：--repo 用户/名称", "choose another source: --repo OWNER/NAME"),
        where=f"{listing.repository}@{listing.revision}",
    )
