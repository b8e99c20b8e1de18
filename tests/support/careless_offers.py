"""Careless backbones, recipes, commands and hooks. (PYTEST_DONT_REWRITE: imported by name.)"""

from __future__ import annotations

from careless_plugins import Careless


def _command(callback: str) -> str:
    return f"@hookimpl\ndef medchat_commands(): return [click.Command('careless-command', callback={callback})]\n"


CARELESS_BACKBONES = {
    "load returns None": Careless("load", backbone="def load(self, options): pass", says="ChatModel"),
    "load returns the class": Careless(
        "load", backbone="def load(self, options): return object", says="ChatModel"
    ),
    "load returns the model's own class": Careless(
        "load", backbone="def load(self, options): return Model", says="ChatModel"
    ),
    "load forgets score": Careless("load", "score = None", says="score"),
    "load fails": Careless(
        "load", backbone="def load(self, options): return {}['hidden_size']", says="KeyError"
    ),
    "load lacks a library": Careless(
        "load", backbone="def load(self, options): import no_such_engine", says="no_such_engine"
    ),
    "load finds no file": Careless(
        "", backbone="def load(self, options): raise CheckpointError('no weights')", code=3
    ),
    "template is a text": Careless(
        "template", backbone="def template(self, options): return '{instruction}'", says="PromptTemplate"
    ),
    "template is None": Careless(
        "template", backbone="def template(self, options): pass", says="PromptTemplate"
    ),
    "template has no name": Careless("template.name", template="name = None", says="str"),
    "template has one stop text": Careless("template.stop", template="stop = '\\n'", says="tuple"),
    "template renders a text": Careless(
        "template.render",
        template="def render(self, turns, question, system=''): return question",
        says="tuple",
    ),
    "template renders texts": Careless(
        "template.render", template="def render(self, turns, question, system=''): return (question,)"
    ),
    "template renders None": Careless("template.render", template="def render(self, *a): pass"),
    "template knows no system text": Careless(
        "template.render", template="def render(self, turns, question): return (Text(question),)"
    ),
    "template names an id": Careless(
        "template.render", template="def render(self, *a): return (Control(150004),)", says="Control.token"
    ),
    "generation is a dict": Careless(
        "generation", backbone="generation = {'top_p': 0.7}", says="GenerationConfig"
    ),
    "generation stops at one text": Careless(
        "generation", backbone="generation = GenerationConfig(stop='</s>')"
    ),
    "summary is a text": Careless(
        "summary", backbone="summary = 'mine'", verb="plugins show", says="Mapping"
    ),
    "load_keys are texts": Careless(
        "load_keys", backbone="load_keys = {'rule': 'one'}", verb="ask --rule one"
    ),
    "load_keys declare no Option": Careless(
        "load_keys", backbone="load_keys = {'depth': {'kind': int}}", says="Option"
    ),
    "an Option of another type": Careless(
        "", backbone="load_keys = {'depth': Option(kind=list)}", says="Option.kind", verb="ask"
    ),
    "capabilities are a dict": Careless(
        "capabilities", backbone="capabilities = {'beams': False}", says="Capabilities"
    ),
    "capabilities name one precision": Careless(
        "", backbone="capabilities = Capabilities(dtypes='float32')", says="Capabilities.dtypes"
    ),
    "file_suffix is a tuple": Careless("file_suffix", backbone="file_suffix = ('.gguf',)", says="str"),
    "save_merged forgets its arguments": Careless(
        "save_merged", backbone="def save_merged(self, options): pass", verb="export merge", says="TypeError"
    ),
    "save_quantized fails": Careless(
        "save_quantized",
        backbone="def save_quantized(self, options, folder): return folder.bits",
        verb="models quantize --bits 4",
        says="AttributeError",
    ),
    "models_in returns one path": Careless(
        "models_in", backbone="def models_in(self, path): return path", says="tuple"
    ),
    "models_in returns texts": Careless(
        "models_in", backbone="def models_in(self, path): return (str(path),)", says="Path"
    ),
    "known_weights lack a licence": Careless(
        "known_weights",
        backbone="known_weights = (KnownWeights('a', 'b', 'c', None, 'd'),)",
        verb="plugins show",
    ),
    "notices are one text": Careless("notices", backbone="def notices(self, options): return 'careful'"),
    "notices are None": Careless("notices", backbone="def notices(self, options): pass"),
    "address is a path": Careless(
        "address", backbone="def address(self, value): return Path(value)", says="str"
    ),
    "trained_templates is one text": Careless(
        "trained_templates",
        backbone="def trained_templates(self, options): return 'bare'",
        verb="ask --template bare",
    ),
    "inspect returns True": Careless(
        "inspect", backbone="def inspect(self, path): return True", verb="models show", says="ModelCard"
    ),
    "inspect leaves context_length out": Careless(
        "inspect",
        backbone="def inspect(self, path): return replace(super().inspect(path), context_length=None)",
        verb="models show",
        says="ModelCard.context_length",
    ),
    "inspect counts below zero": Careless(
        "inspect",
        backbone="def inspect(self, path): return replace(super().inspect(path), context_length=-1)",
        verb="models show",
        says="context_length",
    ),
    "inspect gives one dtype as a text": Careless(
        "inspect",
        backbone="def inspect(self, path): return replace(super().inspect(path), dtypes='float16')",
        verb="models show",
        says="ModelCard.dtypes",
    ),
    "tiny takes no corpus": Careless(
        "tiny", backbone="def tiny(self, path): path.mkdir()", verb="plugins test", says="TypeError"
    ),
    "inspect_adapter returns a text": Careless(
        "inspect_adapter",
        backbone="def inspect_adapter(self, path): return 'lora'",
        verb="models show",
        adapter=True,
    ),
    "template does not know whether it has turns": Careless(
        "template.multi_turn", template="multi_turn = 'yes'", says="bool"
    ),
    "check fails": Careless(
        "check", backbone="def check(self, options): assert options.adapters", verb="infer --check"
    ),
    "special_tokens is a list": Careless(
        "special_tokens",
        template="def render(self, *a): return (Control('<s>'),)",
        backbone="def special_tokens(self, options): return ['<s>']",
        module="@hookimpl\ndef medchat_templates(): return [type('Own', (Template,), {'name': 'own'})()]\n",
        verb="ask --template own",
        says="SpecialTokens",
    ),
    "recipes is a list": Careless("recipes", backbone="recipes = [Recipe()]", verb="sft", says="Mapping"),
    "recipes holds classes": Careless(
        "recipes", backbone="recipes = {'full': Recipe}", verb="sft", says="SFTRecipe"
    ),
}
CARELESS_RECIPES = {
    "recipe without a method": Careless("recipe.method", recipe="method = None", verb="sft"),
    "recipe states its defaults as a list": Careless(
        "recipe.defaults", recipe="defaults = ['full']", verb="sft"
    ),
    "recipe has one collator, a text": Careless(
        "recipe.collators", recipe="collators = 'default'", verb="sft"
    ),
    "sft_recipes gives a list": Careless(
        "medchat_sft_recipes",
        module="@hookimpl\ndef medchat_sft_recipes(): return [Recipe()]\n",
        verb="sft",
        code=0,
    ),
    "recipe resolves to nothing": Careless(
        "recipe.resolve_options", recipe="def resolve_options(self, options): pass", verb="sft"
    ),
    "recipe surveys in a dict": Careless(
        "recipe.survey", recipe="def survey(self, data, options): return {}", verb="sft"
    ),
    "recipe estimates in bytes": Careless(
        "recipe.estimate", recipe="def estimate(self, options, survey): return 2**30", verb="sft"
    ),
    "recipe states a disk of a fraction": Careless(
        "recipe.disk",
        recipe="def disk(self, options, survey): return DiskEstimate({'result': 1.5}, '', 1)",
        verb="sft",
    ),
    "recipe templates a text": Careless(
        "recipe.template", recipe="def template(self, options): return 'bare'", verb="sft"
    ),
    "recipe reports nothing": Careless(
        "recipe.run", recipe="def run(self, data, options, watch): pass", verb="sft", says="SFTReport"
    ),
    "recipe reports another folder": Careless(
        "recipe.run",
        recipe="def run(self, d, o, w): return replace(super().run(d, o, w), output=Path('elsewhere'))",
        verb="sft",
        says="elsewhere",
    ),
    "recipe reports a loss of None": Careless(
        "recipe.run",
        recipe="def run(self, data, options, watch): return SFTReport(options.output, 1, 1, 1, None, 1.0, 1.0)",
        verb="sft",
    ),
    "recipe tells a text": Careless(
        "recipe.run", recipe="def run(self, data, options, watch): watch.on_event('step 1')", verb="sft"
    ),
    "recipe leaves the program": Careless(
        "recipe.run", recipe="def run(self, data, options, watch): sys.exit(0)", verb="sft"
    ),
}


def _slash(run: str) -> Careless:
    module = f"@hookimpl\ndef medchat_slash_commands(): return [SlashCommand('mine', '我的', {{}}, {run})]\n"
    return Careless("/mine", module=module, verb="chat", typed="头痛\n/mine\n", kept="多喝水")


CARELESS_MODULES = {
    "the slash command fails": _slash("lambda conversation, words: words[99]"),
    "the slash command returns nothing": _slash("lambda conversation, words: None"),
    "the slash command takes nothing": _slash("lambda: 'x'"),
    "the slash command leaves the program": _slash("lambda conversation, words: sys.exit(0)"),
    "the slash command raises Ctrl-C itself": _slash(
        "lambda conversation, words: (_ for _ in ()).throw(KeyboardInterrupt)"
    ),
    "backbones is a generator": Careless(
        "medchat_backbones", module="@hookimpl\ndef medchat_backbones(): yield Careless()\n", says="list"
    ),
    "backbones is one backbone": Careless(
        "medchat_backbones", module="@hookimpl\ndef medchat_backbones(): return Careless()\n", says="list"
    ),
    "backbones holds the class": Careless(
        "medchat_backbones", module="@hookimpl\ndef medchat_backbones(): return [Careless]\n", says="Backbone"
    ),
    "backbones has another name": Careless("medchat_backbones", backbone="name = 'Careless'"),
    "the command fails": Careless(
        "medchat careless-command",
        module=_command("lambda: 1 / 0"),
        verb="careless-command",
        says="ZeroDivisionError",
    ),
    "the command leaves the program": Careless(
        "medchat careless-command",
        module=_command("sys.exit"),
        verb="careless-command",
    ),
    "the command returns a text": Careless(
        "medchat careless-command",
        module=_command("lambda: 'failed'"),
        verb="careless-command",
    ),
    "the command is a function": Careless(
        "medchat_commands",
        module="@hookimpl\ndef medchat_commands(): return [print]\n",
        verb="careless-command",
    ),
    "the command is not there": Careless(
        "medchat_commands", module="@hookimpl\ndef medchat_commands(): return []\n", verb="careless-command"
    ),
    "the command refuses what was typed": Careless(
        "",
        module=_command("print"),
        verb="careless-command --no-such-flag",
        code=2,
    ),
}
#: Hooks of a plugin in use: a failing one adds nothing, is named in one line, and the answer is unchanged.
CARELESS_HOOKS = {
    "advise fails": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(text): return text.no\n"
    ),
    "advise returns a text": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): return 'rest'\n"
    ),
    "advise returns texts": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): return ['rest']\n"
    ),
    "advise gives a notice without text": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): return [Notice(None)]\n"
    ),
    "advise leaves the program": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): sys.exit(0)\n"
    ),
    "advise raises Ctrl-C itself": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): raise KeyboardInterrupt\n"
    ),
    "advise raises our error": Careless(
        "medchat_advise", module="@hookimpl\ndef medchat_advise(): raise UsageError('no')\n"
    ),
    "turn_saved fails": Careless(
        "medchat_turn_saved", module="@hookimpl\ndef medchat_turn_saved(turn): turn.answer = ''\n"
    ),
    "turn_saved leaves the program": Careless(
        "medchat_turn_saved", module="@hookimpl\ndef medchat_turn_saved(turn): sys.exit(0)\n"
    ),
}
