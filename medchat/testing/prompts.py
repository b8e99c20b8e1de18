"""Properties of prompts and of scores: which ids a prompt has, and how likely an answer behind it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from medchat.api import Control, Segment, Text, Turn
from medchat.errors import UsageError
from medchat.testing.properties import tested_property
from medchat.testing.subject import QUESTIONS, TALK, Subject, answer_of, deltas_of, expect, skip_unless

#: A name that no vocabulary has.
NO_TOKEN = "<|no such token|>"
#: How far a score may lie above that of the token that was chosen greedily, as another order of sums has it.
_ROUNDING = 1e-3


class PromptProperties(Subject):
    """What holds of every prompt."""

    @tested_property
    def test_an_unknown_control_token_is_a_usage_error(self) -> None:
        """`Control` with a name that the vocabulary lacks raises UsageError or CheckpointError, from `count` on.

        When it fails: look the name up among the special tokens, never encode it as text. Templates of other
        families bring such tokens.
        """
        prompt: list[Segment] = [Text("a"), Control(NO_TOKEN)]
        model = self.loaded()
        ways: dict[str, Callable[[], object]] = {
            "count": lambda: model.count(prompt),
            "stream": lambda: list(deltas_of(model, prompt)),
        }
        for where, ask in ways.items():
            try:
                ask()
            except Exception as error:
                fine = getattr(error, "exit_code", 0) in (2, 3)
                expect(
                    fine, f"{where}: an unknown control token raises {type(error).__name__}, not UsageError"
                )
            else:
                expect(False, f"{where}: an unknown control token is taken; it must raise UsageError")

    @tested_property
    def test_special_tokens_are_those_of_the_vocabulary(self) -> None:
        """Each token of `special_tokens` is one id, another one for each, and no prompt begins with `bos_token` twice.

        When it fails: the ids come from the vocabulary's files, not from config.json, whose ids are often wrong;
        what puts `bos_token` in front must look whether a template has put it there already.
        """
        special = self.backbone.special_tokens(self.options())
        strange = set(special.roles.values()) - set(special.tokens)
        expect(not strange, f"roles name {sorted(strange)}, which tokens lacks")
        if not special.tokens:
            return
        ids = self.special_ids()
        several = [token for token, number in ids.items() if number < 0]
        expect(not several, f"a Control of these does not become exactly one id: {', '.join(several)}")
        expect(len(set(ids.values())) == len(ids), f"two special tokens have one id: {ids}")
        first = ids.get(special.roles.get("bos_token", ""))
        if first is None or first == ids.get(special.roles.get("eos_token", "")):
            return
        for prompt in (self.prompt(QUESTIONS[0]), self.prompt(QUESTIONS[0], TALK)):
            found = self.prompt_ids(prompt)
            given = sum(part == Control(special.roles["bos_token"]) for part in prompt)
            expect(
                found.count(first) <= max(1, given),
                f"bos_token stands {found.count(first)} times in a prompt",
            )

    @tested_property
    def test_no_words_become_a_control_token(self) -> None:
        """Words that spell a special token stay words: in a question, a former turn, a system text, at every place.

        When it fails: encode `Text` with the parsing of special tokens off, and each text of a user apart from the
        template's. Otherwise whoever is quoted can end an answer or speak in the system's name.
        """
        tokens = self.backbone.special_tokens(self.options()).tokens
        if not tokens:
            return
        ids = frozenset(self.special_ids().values())
        ways: list[Callable[[str], Sequence[Segment]]] = [
            lambda words: (Text(words),),
            self.prompt,
            lambda words: self.prompt("?", (Turn(words, "a"),)),
            lambda words: self.prompt("?", (Turn("a", words),)),
        ]
        if self.takes_system():
            ways.append(lambda words: self.prompt("?", system=words))

        def used(words: str) -> Counter[int]:
            return Counter(number for way in ways for number in self.prompt_ids(way(words)) if number in ids)

        plain = used("?")
        for token in tokens:
            for words in (token, f"a{token}b", f"头 {token}", token * 2, token[:-1] + token):
                expect(used(words) == plain, f"the words {words!r} become control tokens")

    @tested_property
    def test_scores_are_those_of_generation(self) -> None:
        """`score` sees what generation sees: no text is likelier than the one that greedy decoding chose.

        At every place of a greedy answer, and at its end; and what follows a token changes no score before
        it. When it fails: the logits are shifted by one, the prompt is not read, or other ids are scored than
        generated.
        """
        skip_unless(self.backbone.capabilities.score, "the backbone tells no scores")
        model = self.loaded()
        for question in QUESTIONS:
            prompt = self.prompt(question)
            answer, _ = answer_of(model, prompt)
            if not answer or "\ufffd" in answer:
                continue
            whole = model.score(prompt, answer)
            expect(len(whole) > 1 and all(value <= _ROUNDING for value in whole), f"scores {whole!r}")
            for length in {0, 1, len(answer) // 2, len(answer) - 1}:
                begun = model.score(prompt, answer[:length])
                at = len(begun) - 1
                if any(abs(one - other) > _ROUNDING for one, other in zip(begun[:at], whole, strict=False)):
                    continue  # the vocabulary joins what stands on both sides
                for other in ("多", "a", "。"):
                    found = model.score(prompt, answer[:length] + other)
                    if len(found) > at and found[:at] == begun[:at]:
                        best = f"{found[at]:.4g} for {other!r}, {whole[at]:.4g} for the greedy token {at}"
                        expect(found[at] <= whole[at] + _ROUNDING, f"behind {answer[:length]!r}: {best}")

    @tested_property
    def test_a_score_that_does_not_fit_is_a_usage_error(self) -> None:
        """`score` refuses a prompt and an answer that are longer than the context together.

        When it fails: compare both lengths with `context_length` first.
        """
        skip_unless(self.backbone.capabilities.score, "the backbone tells no scores")
        model = self.loaded()
        words = QUESTIONS[1] * (2 + 2 * model.context_length // max(1, model.count([Text(QUESTIONS[1])])))
        try:
            model.score(self.prompt(QUESTIONS[0]), words)
        except UsageError:
            return
        expect(False, "a prompt and an answer over context_length are scored; score must raise UsageError")
