"""GGUF files as a backbone, computed by llama.cpp: what a file is, from its header alone."""

from collections.abc import Mapping
from pathlib import Path

from medchat import plugin_kit as kit

medchat_api_version = 1


class GGUF(kit.Backbone):
    name, file_suffix = "gguf", ".gguf"
    summary: Mapping[str, str] = {"zh": "示例：GGUF 文件", "en": "example: GGUF files"}
    capabilities = kit.Capabilities(
        beams=False, adapters=False, batch=False, devices=("cpu",), dtypes=(), quantize=()
    )
    #: `context`: how long it is at most; each token of it takes memory, used or not.
    #: `threads`: -1 leaves it to llama.cpp.
    load_keys: Mapping[str, kit.Option] = {
        "context": kit.Option(kind=int, low=64, high=1 << 20, default=4096),
        "threads": kit.Option(kind=int, low=-1, high=1024, default=-1),
    }

    def load(self, options: kit.LoadOptions) -> kit.ChatModel:
        from medchat_gguf_model import GGUFModel  # llama.cpp is loaded here, not above

        return GGUFModel(options.model, kit.read_gguf_header(options.model), **options.extra)

    def special_tokens(self, options: kit.LoadOptions) -> kit.SpecialTokens:
        header = kit.read_gguf_header(options.model)
        return kit.SpecialTokens(tuple(header.special_ids), header.roles)

    def template(self, options: kit.LoadOptions) -> kit.PromptTemplate:
        source, path = kit.read_gguf_header(options.model).chat_template, options.model
        if not source:
            return kit.load_template("bare")
        return kit.parse_jinja(source, name=path.stem, where=str(path), specials=self.special_tokens(options))

    def inspect(self, path: Path) -> kit.ModelCard | None:
        if path.suffix != self.file_suffix or not path.is_file():
            return None
        header = kit.read_gguf_header(path)
        sizes = {"vocab_size": len(header.tokens), "context_length": header.context_length}
        card = kit.ModelCard(backbone=self.name, family=header.architecture, path=path, **sizes)
        return kit.with_template(card, lambda: self.template(kit.LoadOptions(path)))


@kit.hookimpl
def medchat_backbones() -> list[kit.Backbone]:
    return [GGUF()]
