"""A GGUF file loaded: llama.cpp's own server within this process, asked for one token after the other."""

import json
import random
import secrets
from collections.abc import Generator, Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import xllamacpp

from medchat import plugin_kit as kit


class GGUFModel(kit.LibraryModel):
    def __init__(self, path: Path, header: kit.GGUFHeader, context: int, threads: int) -> None:
        self.context_length, self.special_ids = min(context, header.context_length), header.special_ids
        self.eos_token_id, self.stop_ids = header.end_ids[0], header.end_ids
        self.facts = {"backbone": "gguf", "model": str(path), "dtype": "gguf", "device": "cpu"}
        self._key, self._vocabulary = secrets.token_hex(), len(header.tokens)
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = str(path), self.context_length, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup, params.n_gpu_layers, params.cache_ram_mib, params.verbosity = False, 0, 0, -1
        params.hostnames, params.port, params.ui, params.api_keys = ["127.0.0.1"], 0, False, [self._key]
        try:
            self._server: Any = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise kit.CheckpointError(f"llama.cpp: {error}", where=str(path)) from error
        self.front_ids = self._ask("tokenize", content="", add_special=True)["tokens"]
        self._complete([self.eos_token_id])  # the server cannot be ended before its loop has begun

    def encode(self, text: str) -> list[int]:
        return list(self._ask("tokenize", content=text, parse_special=False)["tokens"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._ask("detokenize", tokens=list(ids))["content"])

    def tokens(self, ids: Sequence[int], config: kit.GenerationConfig) -> Generator[int, None, None]:
        luck, read = random.Random(config.seed), list(ids)
        settings = {"temperature": 0.0 if config.greedy else config.temperature, "top_k": config.top_k}
        settings |= {"top_p": config.top_p, "repeat_penalty": config.repetition_penalty}
        while True:
            found = self._complete(read, seed=luck.getrandbits(31), **settings)
            if len(read) == len(ids):
                self.reused_tokens = found["timings"]["cache_n"]
            read += found["tokens"]
            yield read[-1]

    def token_scores(self, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        return [self._score([*prompt, *answer[:at]], token) for at, token in enumerate(answer)]

    def close(self) -> None:
        self._server = None

    def _score(self, ids: list[int], token: int) -> float:
        # The bias makes the token come. The server is silent about one that is half a character: then all are asked
        # for beside another.
        for chosen, width in ((token, 1), (self.eos_token_id, self._vocabulary)):
            found = self._complete(ids, temperature=0.0, logit_bias=[[chosen, 1e4]], n_probs=width)
            rows = found.get("completion_probabilities") or ()
            seen = {one["id"]: one["logprob"] for row in rows for one in (row, *row["top_logprobs"])}
            if token in seen:
                return float(seen[token])
        return -float("inf")

    def _complete(self, ids: list[int], **settings: Any) -> dict[str, Any]:
        settings |= {"samplers": ["penalties", "temperature", "top_k", "top_p"], "return_tokens": True}
        return self._ask("completion", prompt=ids, n_predict=1, repeat_last_n=self.context_length, **settings)

    def _ask(self, what: str, **body: Any) -> dict[str, Any]:
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        with closing(HTTPConnection(self._server.listening_address.removeprefix("http://"))) as connection:
            connection.request("POST", f"/{what}", json.dumps(body), head)
            said: dict[str, Any] = json.loads(connection.getresponse().read())
        if "error" in said:
            raise RuntimeError(said["error"]["message"])
        return said
