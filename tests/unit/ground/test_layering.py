"""Where settings come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from rbee.config import file as config_file
from rbee.config.file import ConfigFile
from rbee.config.layering import LayeredSettings, Layers, read
from rbee.errors import ConfigError


class Settings(LayeredSettings):
    model_config = SettingsConfigDict(env_prefix="RBEE_TEST_")
    table = "test"
    credentials: ClassVar[Mapping[str, str]] = {"port": "port"}
    foreign_keys = ("foreign",)
    foreign_env = ("RBEE_TEST_FOREIGN", "RBEE_TEST_OTHER_")

    port: int = Field(default=1, ge=0, le=65535)
    api_key: SecretStr | None = None
    names: list[str] = Field(default_factory=list)


def config(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return config_file.read(path)


def layers(tmp_path: Path, text: str, environ: dict[str, str], **flags: object) -> Layers:
    return Layers(environ, config(tmp_path, text), flags)


def test_the_first_layer_that_has_a_value_wins(tmp_path: Path) -> None:
    """Command line beats environment beats credentials beats file beats default, and each value has its source."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "port").write_text("30\n")
    environ = {"RBEE_TEST_PORT": "20", "CREDENTIALS_DIRECTORY": str(folder)}
    text = "[test]\nport = 40\n"

    def port(environ: dict[str, str], text: str, **flags: object) -> tuple[int, str]:
        settings, sources = read(Settings, layers(tmp_path, text, environ, **flags))
        return settings.port, sources["port"]

    assert port(environ, text, port="10") == (10, "--port")
    assert port(environ, text, port=None) == (20, "RBEE_TEST_PORT")
    del environ["RBEE_TEST_PORT"]
    assert port(environ, text) == (30, "credential port")
    assert port({}, text) == (40, f"{tmp_path}/config.toml:2")
    assert port({}, "") == (1, "default")


def test_every_setting_has_a_source(tmp_path: Path) -> None:
    """A setting that no layer has says that it is the default."""
    _, sources = read(Settings, layers(tmp_path, "[test]\nport = 40\n", {}))

    assert sources == {"port": f"{tmp_path}/config.toml:2", "api_key": "default", "names": "default"}


def test_a_constructor_looks_at_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are made in code have the values that are given, whatever the environment says."""
    monkeypatch.setenv("RBEE_TEST_PORT", "20")

    assert (Settings().port, Settings(port=3).port) == (1, 3)


def test_an_unknown_key_is_refused_with_file_and_line(tmp_path: Path) -> None:
    """A key that no setting has is named with its file, its line and the keys there are; foreign ones are let be."""
    with pytest.raises(
        ConfigError, match=r"config.toml:3: unknown key 'prot' in \[test\]; did you mean 'port'\?"
    ) as caught:
        read(Settings, layers(tmp_path, "# a comment\n[test]\nprot = 40\n", {}))
    with pytest.raises(
        ConfigError, match=r"unknown key 'banana' in \[test\]; known keys: api_key, foreign, names, port\."
    ):
        read(Settings, layers(tmp_path, "[test]\nbanana = 40\n", {}))

    assert caught.value.line == 3
    read(Settings, layers(tmp_path, "[test]\nforeign = 40\n", {}))


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    """A variable with the program's prefix that no setting has is named; foreign ones are let be."""
    with pytest.raises(ConfigError, match="RBEE_TEST_PROT in the environment; did you mean 'RBEE_TEST_PORT'"):
        read(Settings, layers(tmp_path, "", {"RBEE_TEST_PROT": "1"}))
    read(Settings, layers(tmp_path, "", {"RBEE_TEST_FOREIGN": "1", "RBEE_TEST_OTHER_THING": "1"}))


def test_a_wrong_value_is_refused_with_its_source(tmp_path: Path) -> None:
    """A value out of bounds names the key, the reason and where it was set."""
    with pytest.raises(ConfigError, match=r"config.toml:3: port: .*65535"):
        read(Settings, layers(tmp_path, "[test]\n\nport = 70000\n", {}))
    with pytest.raises(ConfigError, match=r"port: .*RBEE_TEST_PORT"):
        read(Settings, layers(tmp_path, "", {"RBEE_TEST_PORT": "many"}))


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Unknown keys and variables and wrong values come in one error, those of the file in the order of its lines."""
    text = "[test]\nport = 70000\nprot = 1\nnames = 3\n"

    with pytest.raises(ConfigError) as caught:
        read(Settings, layers(tmp_path, text, {"RBEE_TEST_PROT": "1"}))

    every = [caught.value, *caught.value.also]
    assert [error.line for error in every] == [None, 2, 3, 4]
    assert [each["line"] for each in caught.value.details["also"]] == [2, 3, 4]
    assert [error.reason.partition(":")[0] for error in every][1::2] == ["port", "names"]


def test_a_control_character_is_named(tmp_path: Path) -> None:
    """A value that holds one is refused by its number and not shown; one that another layer overrides does no harm."""
    text = '[test]\nnames = ["a", "b\\u0000"]\n'

    with pytest.raises(ConfigError, match=r"config.toml:2: names: holds a control character \(U\+0000\)"):
        read(Settings, layers(tmp_path, text, {}))
    assert read(Settings, layers(tmp_path, text, {"RBEE_TEST_NAMES": '["a"]'}))[0].names == ["a"]


def test_lists_come_from_the_environment_as_json(tmp_path: Path) -> None:
    """A list in the environment is JSON, and anything else there is refused."""
    settings, _ = read(Settings, layers(tmp_path, "", {"RBEE_TEST_NAMES": '["a", "b"]'}))

    assert settings.names == ["a", "b"]
    with pytest.raises(ConfigError, match=r"names: invalid JSON \(from RBEE_TEST_NAMES\)"):
        read(Settings, layers(tmp_path, "", {"RBEE_TEST_NAMES": "a,b"}))


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    """A file that is not TOML is refused with the line where it stops being so."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, 'queen_url = "x"\nmodels = [\n')

    assert caught.value.path == str(tmp_path / "config.toml")
    assert caught.value.line is not None


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    """Brackets without end are no bug of ours."""
    with pytest.raises(ConfigError, match=r"config\.toml: is nested too deeply"):
        config(tmp_path, f"a = {'[' * 3000}{']' * 3000}\n")


def test_the_first_config_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RBEE_CONFIG comes before ~/.config/rbee, that before ~/.rbee; a named file must exist."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".config/rbee", ".rbee"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.toml").write_text("")
    named = tmp_path / "named.toml"

    assert config_file.find({}).path == tmp_path / ".config/rbee/config.toml"
    (tmp_path / ".config/rbee/config.toml").unlink()
    assert config_file.find({}).path == tmp_path / ".rbee/config.toml"
    with pytest.raises(ConfigError, match=r"named\.toml"):
        config_file.find({"RBEE_CONFIG": str(named)})
    named.write_text("")
    assert config_file.find({"RBEE_CONFIG": str(named)}).path == named


def test_a_variable_in_small_letters_is_not_ours(tmp_path: Path) -> None:
    """Variables are written in capitals; one in small letters sets nothing and is nobody's mistake."""
    settings, sources = read(Settings, layers(tmp_path, "", {"rbee_test_port": "20", "rbee_test_prot": "1"}))

    assert (settings.port, sources["port"]) == (1, "default")


@pytest.mark.parametrize(("content", "says"), [(b"\xff", "cannot be read"), (b"\n", "is empty")])
def test_a_credential_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    """A credential that is no text, or empty, is refused with its file."""
    (tmp_path / "port").write_bytes(content)

    with pytest.raises(ConfigError, match=rf"{tmp_path}/port: .*{says}"):
        read(Settings, layers(tmp_path, "", {"CREDENTIALS_DIRECTORY": str(tmp_path)}))
