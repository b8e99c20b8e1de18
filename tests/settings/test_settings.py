"""Settings: which layer counts, where a value came from, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from locations import ROOT

from medchat.api import GENERATION_SETTINGS, GenerationConfig
from medchat.errors import UsageError
from medchat.settings import KEYS, Layer, Settings, key_named
from medchat.settings.values import checked, from_text


def load(
    tmp_path: Path,
    *,
    user: str = "",
    project: str = "",
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    profile: str = "",
) -> Settings:
    """Load settings from files written on the spot, seeing none of this machine's."""
    files = {"config.toml": user, "medchat.toml": project}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return Settings.load(
        flags,
        profile=profile,
        environment=environment or {},
        user_file=tmp_path / "config.toml",
        project_file=tmp_path / "medchat.toml",
    )


def refusal(tmp_path: Path, **given: Any) -> UsageError:
    """Return the error that loading raises."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, **given)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


LAYERS = (
    (Layer.USER_FILE, {"user": '[generation]\ntop_k = 1'}, "config.toml:2"),
    (Layer.PROJECT_FILE, {"project": "generation.top_k = 2"}, "medchat.toml:1"),
    (Layer.VARIABLE, {"environment": {"MEDCHAT_TOP_K": "3"}}, "MEDCHAT_TOP_K"),
    (
        Layer.PROFILE,
        {"user": "[generation]\ntop_k = 1\n[profile.p]\ntop_k = 4", "profile": "p"},
        "（{}:4）",
    ),
    (Layer.FLAG, {"flags": {"generation.top_k": 5}}, "--top-k"),
)  # fmt: skip


@pytest.mark.parametrize("highest", range(len(LAYERS)))
def test_the_highest_layer_counts_and_is_named(tmp_path: Path, highest: int) -> None:
    given: dict[str, Any] = {}
    for _, values, _ in LAYERS[: highest + 1]:
        given |= values
    settings = load(tmp_path, **given)
    layer, _, place = LAYERS[highest]
    assert settings.value("generation.top_k") == highest + 1
    assert settings.origin("generation.top_k").layer is layer
    assert str(settings.origin("generation.top_k")).endswith(place.format(tmp_path / "config.toml"))


def test_the_order_of_layers_is_the_specified_one() -> None:
    assert [layer.name for layer in sorted(Layer)] == [
        "BUILTIN", "PLUGIN", "WEIGHTS", "USER_FILE", "PROJECT_FILE", "VARIABLE", "PROFILE", "FLAG", "COMMAND",
    ]  # fmt: skip


def test_unset_generation_keys_leave_the_backbones_own_defaults(tmp_path: Path) -> None:
    backbone = GenerationConfig(max_new_tokens=77, temperature=0.5, top_p=0.7, num_beams=4)
    settings = load(tmp_path, user="[generation]\ntop_p = 0.9")
    assert settings.generation(over=backbone) == GenerationConfig(
        max_new_tokens=77, temperature=0.5, top_p=0.9, num_beams=4
    )
    shown = {line.key.short: line for line in settings.effective("echo", backbone)}
    assert (shown["num_beams"].value, shown["num_beams"].origin.layer) == (4, Layer.PLUGIN)
    assert "echo" in str(shown["num_beams"].origin)
    assert shown["top_p"].origin.layer is Layer.USER_FILE


def test_what_the_weights_bring_counts_where_nobody_chose_and_says_so(tmp_path: Path) -> None:
    brought = {"template": "own", "generation.greedy": True, "generation.top_k": 3}
    settings = load(tmp_path, user="[generation]\ntop_k = 9")

    def shown(settings: Settings) -> dict[str, tuple[object, Layer]]:
        lines = settings.effective("echo", GenerationConfig(), brought)
        return {line.key.name: (line.value, line.origin.layer) for line in lines}

    at_first = shown(settings)
    assert at_first["template"] == ("own", Layer.WEIGHTS)
    assert at_first["generation.greedy"] == (True, Layer.WEIGHTS)
    assert at_first["generation.top_k"] == (9, Layer.USER_FILE)
    changed = shown(settings.changed({"template": "bare", "greedy": False}, "/set"))
    assert changed["template"] == ("bare", Layer.COMMAND)
    assert changed["generation.greedy"] == (False, Layer.COMMAND)
    unset = shown(settings.changed({"template": None}, "/template"))
    assert unset["template"] == ("own", Layer.WEIGHTS)


def test_generation_without_a_backbone_is_the_built_in_one(tmp_path: Path) -> None:
    assert load(tmp_path).generation() == GenerationConfig()


def test_every_setting_is_shown_once_with_a_valid_default_and_both_descriptions(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert [line.key.name for line in settings.effective()] == list(KEYS)
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)
    for key in KEYS.values():
        assert key.zh and key.en
        assert settings.origin(key.name).layer is Layer.BUILTIN
        if key.choices and key.default is not None:
            assert key.default in key.choices


def test_every_generation_setting_of_the_api_is_in_the_table() -> None:
    table = {key.short for name, key in KEYS.items() if name.startswith("generation.")}
    assert table == {*GENERATION_SETTINGS}


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ('# note\n\ndevise = "cpu"\n', 3, "device"),
        ("[generation]\n# warm\ntemprature = 0.5\n", 3, "generation.temperature"),
        ("temperature = 0.5\n", 1, "[generation]"),
        ("generation.max_new_token = 5\n", 1, "generation.max_new_tokens"),
        ("[remote]\n\nwhatever = 1\n", 3, "config show"),
        ("[empty]\n", 1, "config show"),
    ],
)
def test_an_unknown_key_is_an_error_with_its_line_and_what_was_meant(
    tmp_path: Path, text: str, line: int, hint: str
) -> None:
    for name, layer in (("config.toml", {"user": text}), ("medchat.toml", {"project": text})):
        error = refusal(tmp_path, **layer)
        assert error.where == f"{tmp_path / name}:{line}"
        assert hint in error.remedy


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[generation]\ntop_p = "much"\n', 2),
        ("[generation]\nmax_new_tokens = 3.5\n", 2),
        ("[generation]\ngreedy = 1\n", 2),
        ("[generation]\nseed = true\n", 2),
        ("[generation]\n\ntemperature = 0\n", 3),
        ("[generation]\ntemperature = nan\n", 2),
        ("device = 'gpu'\n", 1),
        ("device = 3\n", 1),
        ("adapter = [1]\n", 1),
        ("lang = 'fr'\n", 1),
        ("max_question_bytes = 0\n", 1),
        ("model = ''' \n''' \n[generation]\n  'top_k' = -1\n", 4),
        ("generation = { top_k = -1 }\n", 1),
    ],
)
def test_a_bad_value_is_an_error_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert refusal(tmp_path, user=text).where == f"{tmp_path / 'config.toml'}:{line}"


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, user='device = "cpu"\nmodel = \n').where.endswith("config.toml:2")
    assert refusal(tmp_path, user='device = "cpu"\nmodel = """\n').where.endswith(
        ("config.toml:2", "config.toml:3")
    )


def test_a_file_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes('device = "cpu"\nsystem = "你好"'.encode("gbk"))
    with pytest.raises(UsageError) as caught:
        Settings.load(environment={}, user_file=tmp_path / "config.toml", project_file=tmp_path / "none")
    assert caught.value.where.endswith("config.toml:2")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'\xef\xbb\xbfdevice = "cpu"')
    settings = Settings.load(environment={}, user_file=tmp_path / "config.toml", project_file=tmp_path / "no")
    assert settings.value("device") == "cpu"


def test_a_folder_in_the_files_place_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="配置文件") as caught:
        Settings.load(environment={}, user_file=tmp_path, project_file=tmp_path / "none")
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize(
    "name", ["api_key", "openai_api_key", "hf_token", "password", "secrets", "remote.api-key"]
)
def test_secrets_are_refused_without_being_repeated(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, user=f'{name} = "sk-hidden"')
    assert "环境变量" in error.remedy
    assert "sk-hidden" not in f"{error.what} {error.remedy} {error.where}"


@pytest.mark.parametrize(
    "text",
    [
        'plugins = ["evil"]',
        'plugins = []',
        'backbone = "evil"',
        'backbone = "remote"',
        "save = true",
        "offline = false",
        'endpoint = "http://evil"',
        '[remote]\nbase_url = "http://evil"',
    ],
)  # fmt: skip
def test_a_projects_file_may_not_enable_plugins_endpoints_or_code(tmp_path: Path, text: str) -> None:
    assert "medchat.toml:" in refusal(tmp_path, project=text).where


def test_a_projects_file_may_choose_what_stays_safe(tmp_path: Path) -> None:
    settings = load(tmp_path, project='backbone = "chatglm"\nsave = false\noffline = true\nsystem = "简短"')
    assert [settings.value(name) for name in ("backbone", "save", "offline", "system")] == [
        "chatglm", False, True, "简短",
    ]  # fmt: skip


def test_what_a_projects_file_may_not_the_users_own_may(tmp_path: Path) -> None:
    settings = load(tmp_path, user='plugins = ["a", "b"]\nbackbone = "mine"\nsave = true')
    assert settings.value("plugins") == ("a", "b")
    assert settings.value("backbone") == "mine"


def test_paths_in_a_file_are_seen_from_that_file_and_names_left_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, user='model = "./weights"\nadapter = ["../lora", "named"]\ntemplate = "med"')
    assert settings.value("model") == str(tmp_path / "weights")
    assert settings.value("adapter") == (str(tmp_path.parent / "lora"), "named")
    assert settings.value("template") == "med"


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("MEDCHAT_GREEDY", "yes", "greedy", True),
        ("MEDCHAT_SAVE", "0", "save", False),
        ("MEDCHAT_LANG", "zh_CN.UTF-8", "lang", "zh"),
        ("MEDCHAT_PLUGINS", "a, b,", "plugins", ("a", "b")),
        ("MEDCHAT_TEMPERATURE", " 0.5 ", "temperature", 0.5),
        ("MEDCHAT_SYSTEM", " 你是医生助手 ", "system", " 你是医生助手 "),
        ("MEDCHAT_DEVICE", "", "device", "auto"),
        ("MEDCHAT_DEVICE", "cuda:1", "device", "cuda:1"),
        ("MEDCHAT_ENGINE", "torch", "engine", "torch"),
    ],
)
def test_variables_are_read_as_their_kind(
    tmp_path: Path, variable: str, text: str, name: str, value: object
) -> None:
    assert load(tmp_path, environment={variable: text}).value(name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MEDCHAT_TOP_K", "many"),
        ("MEDCHAT_OFFLINE", "perhaps"),
        ("MEDCHAT_DTYPE", "int3"),
        ("MEDCHAT_ENGINE", "fast"),
        ("MEDCHAT_SEED", "-1"),
    ],
)
def test_a_bad_variable_is_named(tmp_path: Path, variable: str, text: str) -> None:
    assert variable in refusal(tmp_path, environment={variable: text}).what


def test_a_bad_flag_is_named_with_the_valid_range(tmp_path: Path) -> None:
    error = refusal(tmp_path, flags={"generation.temperature": 9.0})
    assert "--temperature" in error.what
    assert "(0, 2]" in error.remedy


def test_flags_not_given_leave_lower_layers_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, user='dtype = "float32"', flags={"dtype": None, "adapter": ["./a", "b"]})
    assert settings.value("dtype") == "float32"
    assert settings.value("adapter") == ("./a", "b")


def test_a_misspelt_variable_is_told_and_a_strangers_left_alone(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        environment={
            "MEDCHAT_TEMPRATURE": "1",
            "MEDCHAT_MY_PLUGIN_URL": "x",
            "MEDCHAT_ENGINE_INSTRUCTIONS": "avx2",
            "PATH": "/",
        },
    )
    assert len(settings.warnings) == 1
    assert "MEDCHAT_TEMPERATURE" in settings.warnings[0]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("MEDCHAT_QUANTIZATION", "MEDCHAT_QUANTIZE"),
        ("MEDCHAT_LANGUAGE", "MEDCHAT_LANG"),
        ("MEDCHAT_NO_SAVE", "MEDCHAT_SAVE"),
        ("MEDCHAT_MODELS", "MEDCHAT_MODEL"),
        ("MEDCHAT_MAX_TOKENS", "MEDCHAT_MAX_NEW_TOKENS"),
        ("MEDCHAT_REMOTE_APIKEY", "MEDCHAT_REMOTE_KEY"),
        ("MEDCHAT_REMOTE_TIMEOUTS", "MEDCHAT_REMOTE_TIMEOUT"),
        ("MEDCHAT_LAUNCHTIMEOUT", "MEDCHAT_LAUNCH_TIMEOUT"),
    ],
)
def test_what_was_meant_by_a_misspelt_variable_is_named(tmp_path: Path, typed: str, meant: str) -> None:
    (warning,) = load(tmp_path, environment={typed: "1"}).warnings
    assert typed in warning and meant in warning.replace(typed, "")


def test_every_variable_that_the_program_reads_is_known(tmp_path: Path) -> None:
    """One that is not would be pointed out as misspelt to whoever sets it, or never where it is misspelt."""
    sources = [path for part in ("medchat", "plugins", "scripts") for path in (ROOT / part).rglob("*.*")]
    read = set()
    for path in sources:
        text = path.read_text(encoding="utf-8") if path.suffix in (".py", ".sh") else ""
        if path.suffix == ".sh" or "environ" in text:
            read |= set(re.findall(r'["$]\{?(MEDCHAT_[A-Z_]*[A-Z])\b', text))
    assert len(read) > 8
    for name in sorted(read):
        warnings = load(tmp_path, environment={name + "X": "1"}).warnings
        assert name in "".join(warnings).replace(name + "X", ""), name


def test_what_the_folder_has_chosen_is_one_line_that_names_file_and_key(tmp_path: Path) -> None:
    chosen = 'device = "cpu"\nsystem = "你是医生"\nsave = false\ntemplate = "bare"\n'
    notice = load(tmp_path, project=chosen).folder_notice()
    assert all(text in notice for text in ("medchat.toml:2", "medchat.toml:3", "medchat.toml:4"))
    assert all(text in notice for text in ('system = "你是医生"', "save = false", 'template = "bare"'))
    assert "device" not in notice and "\n" not in notice
    assert load(tmp_path, project='device = "cpu"\nstyle = "plain"').folder_notice() == ""


def test_what_goes_over_the_folders_choice_is_not_announced(tmp_path: Path) -> None:
    project = 'system = "a"\nsave = false'
    over = {"flags": {"system": "b"}, "environment": {"MEDCHAT_SAVE": "yes"}}
    assert load(tmp_path, project=project, **over).folder_notice() == ""
    assert load(tmp_path, user=project).folder_notice() == ""
    assert "save" in load(tmp_path, project=project, flags={"system": "b"}).folder_notice()


@given(text=st.text(max_size=12))
@hypothesis_settings(max_examples=200)
def test_whatever_a_variable_holds_is_taken_or_refused_politely(text: str) -> None:
    for key in KEYS.values():
        try:
            value = from_text(key, text, key.variable)
        except UsageError as error:
            assert key.variable in error.what
            continue
        assert checked(key, value, key.variable) == value


def test_short_and_full_names_are_the_same_key() -> None:
    assert key_named("max-new-tokens") is key_named("generation.max_new_tokens")


def test_without_files_neither_tomllib_nor_difflib_nor_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from medchat.settings import Settings; Settings.load(); "
        "print([m for m in ('tomllib', 'difflib', 'torch', 'click', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "MEDCHAT_HOME": str(tmp_path / "home"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "home").exists()
