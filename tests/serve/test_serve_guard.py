"""Who may ask: hosts, origins, kinds of body, tokens; before anything of a request is read."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import httpx2
import pytest
from medchat_serve.access_token import find_token
from medchat_serve.api_error import ApiError
from medchat_serve.guard import Guard
from served_model import Served, question, serving
from starlette.datastructures import Headers

from medchat.errors import UsageError
from medchat.plugin_kit import OpenedModel

pytest_plugins = ("served_model",)

PAGE = "http://localhost:3000"
TOKEN = "a-token-of-the-tests"


def refused(response: httpx2.Response) -> str:
    """Return the code of a refusal."""
    return f"{response.status_code} {response.json()['error']['code']}"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example.", "evil.example.:8321"),
        *("10.0.0.1", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "[::2]", "", ".", ":8321", "[", "[]"),
        *("somebody@localhost", "localhost:80@evil.example", "evil.example#@localhost", "localhost..:1"),
        *("localhost/evil", "localhost?evil", "localhost\\evil", "localhost, evil.example", "localhost:x"),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(served: Served, host: str) -> None:
    assert refused(served.post(question("头痛"), Host=host)) == "403 host_not_allowed"
    with served.client() as client:
        assert refused(client.get("/v1/models", headers={"Host": host})) == "403 host_not_allowed"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8321", "localhost.", "localhost.:8321", "127.0.0.1:1", "[::1]", "[0:0::1]:8321"],
)
def test_this_machines_own_names_are_answered(served: Served, host: str) -> None:
    assert served.post(question("头痛"), Host=host).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", PAGE, "http://localhost", ""])
def test_another_page_is_refused_before_any_work(served: Served, origin: str) -> None:
    response = served.post(question("头痛"), Origin=origin)
    assert refused(response) == "403 origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers
    assert not [line for line in served.log if "cmpl" in line]


def test_several_origins_are_refused_whatever_they_are() -> None:
    guard = Guard(origins=[PAGE])
    for ours, other in product((PAGE, "http://localhost"), ("https://evil.example", "null")):
        for origins in ([ours, other], [other, ours]):
            stated = [(b"host", b"localhost"), *((b"origin", origin.encode()) for origin in origins)]
            with pytest.raises(ApiError) as refusal:
                guard.check(Headers(raw=stated))
            assert refusal.value.code == "origin_not_allowed"
    guard.check(Headers({"host": "localhost", "origin": PAGE}))


def test_a_page_that_was_allowed_may_ask_and_read_with_any_header(scripted_model: OpenedModel) -> None:
    with (
        serving(scripted_model, guard=Guard(origins=[PAGE], token=TOKEN)) as served,
        served.client() as client,
    ):
        asked = {"Origin": PAGE, "Access-Control-Request-Headers": "authorization,x-stainless-os"}
        before = client.options("/v1/chat/completions", headers=asked)
        assert before.status_code == 204
        allowed = before.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed and "*" in allowed
        answer = served.post(question("头痛"), Origin=PAGE, Authorization=f"Bearer {TOKEN}")
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        unknown = served.post(question("头痛"), Origin=PAGE)
        assert refused(unknown) == "401 invalid_api_key"
        assert unknown.headers["access-control-allow-origin"] == PAGE, "openai-js must be able to read why"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_page_may_send_unasked_is_refused(served: Served, kind: str) -> None:
    with served.client() as client:
        body = b'{"messages":[{"role":"user","content":"x"}]}'
        response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": kind})
    assert refused(response) == "415 invalid_content_type"


def test_numeric_addresses_are_answered_where_other_machines_may_ask_and_names_by_permission(
    scripted_model: OpenedModel,
) -> None:
    guard = Guard(frozenset({"ward.example"}), any_address=True, token=TOKEN)
    with serving(scripted_model, guard=guard) as served:
        for host, status in (("10.1.2.3:8321", 200), ("ward.example", 200), ("evil.example", 403)):
            answer = served.post(question("头痛"), Host=host, Authorization=f"Bearer {TOKEN}")
            assert answer.status_code == status, host


@pytest.mark.parametrize("given", ["", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer 令牌"])
def test_only_the_whole_token_opens(scripted_model: OpenedModel, given: str) -> None:
    with serving(scripted_model, guard=Guard(token=TOKEN)) as served, served.client() as client:
        headers = {"Authorization": given.encode()}
        assert refused(client.get("/v1/models", headers=headers)) == "401 invalid_api_key"
        assert client.get("/models", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_the_token_comes_from_the_environment_or_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n", encoding="utf-8")
    file.chmod(0o600)
    assert find_token({}, file) == find_token({"MEDCHAT_SERVE_TOKEN": TOKEN}, None) == TOKEN
    assert find_token({}, None) == ""
    for mode in (0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UsageError) as caught:
            find_token({}, file)
        assert caught.value.remedy.startswith("chmod 600")


@pytest.mark.parametrize(
    "token", ["short", "with a space in it", "不是字符不是字符不是字符不是字符", "x" * 5000]
)
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(UsageError) as caught:
        find_token({}, file)
    assert caught.value.where == str(file) and token not in caught.value.what
