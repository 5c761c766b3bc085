"""The keeper's settings: their layers, and the refusal of what no setting knows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from rbee.config.file import ConfigFile, read
from rbee.errors import ConfigError
from rbee.keeper import default_config
from rbee.keeper.settings import load


def written(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return read(path)


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    """Each value says where it came from."""
    file = written(tmp_path, 'queen_url = "http://10.0.0.1:1"\nstart_timeout_s = 5\n')

    settings = load({"RBEE_QUEEN_URL": "http://10.0.0.2:2/"}, file)

    assert settings.queen_url == "http://10.0.0.2:2"
    assert settings.sources["queen_url"] == "RBEE_QUEEN_URL"
    assert settings.keeper.start_timeout_s == 5.0
    assert settings.sources["start_timeout_s"] == f"{tmp_path}/config.toml:2"
    assert settings.sources["inventory"] == "default"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("\nquen_url = 1\n", 2, "unknown key 'quen_url'"),
        ("[remote]\nbinary = 'x'\n", 2, "unknown key 'binary' in [remote]"),
        ("queen_url = 'ftp://x'\n", 1, "must be an address"),
        ("queen_url = 'http://h:99999'\n", 1, "must be an address"),
        ("start_timeout_s = 0\n", 1, "greater than 0"),
        ("start_timeout_s = true\n", 1, "a number of seconds"),
        ("start_timeout_s = nan\n", 1, "greater than 0"),
        ("[models]\n\ntiny = 5\n", 3, "must be a model reference"),
        ("queen = 5\n", 1, "'queen' must be a table"),
        ("[models\n", 1, "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    """An unknown key or a wrong value names the key, the file and the line."""
    with pytest.raises(ConfigError) as caught:
        load({}, written(tmp_path, text))

    assert f"{tmp_path}/config.toml:{line}: " in caught.value.message
    assert says in caught.value.message


def test_a_wrong_variable_is_refused() -> None:
    """A mistyped variable is named; those of the daemons are theirs to judge."""
    with pytest.raises(ConfigError, match="RBEE_INVENTRY"):
        load({"RBEE_INVENTRY": "x"}, ConfigFile(None))
    with pytest.raises(ConfigError, match="RBEE_START_TIMEOUT_S"):
        load({"RBEE_START_TIMEOUT_S": "soon"}, ConfigFile(None))
    load({"RBEE_HIVE_ANYTHING": "x", "RBEE_HOME": "/x"}, ConfigFile(None))


def test_an_alias_of_the_file_wins_over_a_built_in_one(tmp_path: Path) -> None:
    """`demo` is there without a file, and can be given another meaning."""
    assert load({}, ConfigFile(None)).aliases["demo"].startswith("package:")
    assert load({}, written(tmp_path, "[models]\ndemo = 'hf:a/b'\n")).aliases["demo"] == "hf:a/b"


def test_the_default_file_is_right_as_it_is_and_with_every_line_taken_in(tmp_path: Path) -> None:
    """What `install` writes is accepted, commented out and not."""
    text = default_config.text()
    load({}, written(tmp_path, text))
    assert tomllib.loads(text) == {"models": {}, "remote": {}, "queen": {}, "hive": {}, "worker": {}}

    settings = load({}, written(tmp_path, re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text)))

    assert {key for key, source in settings.sources.items() if source != "default"} == set(settings.sources)


def test_a_mark_of_the_byte_order_before_the_file_is_left_out(tmp_path: Path) -> None:
    """Editors of Windows write one; the first key is read like any other."""
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfqueen_url = "http://10.0.0.1:1"\n')

    assert load({}, read(path)).queen_url == "http://10.0.0.1:1"


@pytest.mark.parametrize("url", ["http://10.0.0.1:8080/v1", "http://10.0.0.1:8080/v1/", "http://10.0.0.1:8080/"])
def test_the_base_url_of_a_client_names_its_queen(tmp_path: Path, url: str) -> None:
    """What is pasted into an OpenAI client may be pasted here."""
    assert load({}, written(tmp_path, f'queen_url = "{url}"\n')).queen_url == "http://10.0.0.1:8080"


@pytest.mark.parametrize(
    ("base", "rest"),
    [
        ("http://10.0.0.1:8080", "/v1/chat/completions"),
        ("http://10.0.0.1:8080", "/v1/chat/completions/"),
        ("http://10.0.0.1:8080", "/v1/messages?beta=true"),
        ("http://10.0.0.1:8080", "/v2"),
        ("http://10.0.0.1:8080", "/v2/workers/list"),
        ("http://10.0.0.1:8080", "/health"),
        ("http://10.0.0.1:8080", "/?key=x"),
        ("https://bees.example/llm", "/v1/models"),
    ],
)
def test_the_address_of_a_request_is_refused_with_the_one_to_write(tmp_path: Path, base: str, rest: str) -> None:
    """What ends in the path of a route is CONFIG_INVALID, and the error has the right value; a proxy's path is kept."""
    with pytest.raises(ConfigError) as caught:
        load({}, written(tmp_path, f'queen_url = "{base}{rest}"\n'))

    assert f"must be the address of the queen, '{base}'" in caught.value.message
    assert load({}, written(tmp_path, f'queen_url = "{base}"\n')).queen_url == base


def test_a_user_without_a_home_needs_only_rbee_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the home directory is unknown, RBEE_HOME is enough, and without it the error names it."""
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: (_ for _ in ()).throw(KeyError("uid")))

    assert load({"RBEE_HOME": str(tmp_path)}).paths.home == tmp_path
    with pytest.raises(ConfigError, match="RBEE_HOME"):
        load({})
