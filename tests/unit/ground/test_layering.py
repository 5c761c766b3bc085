"""Where settings come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rbee.config import file as config_file
from rbee.config.file import ConfigFile
from rbee.config.layering import SourcedValue, merge, sources, validate
from rbee.errors import ConfigError


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    port: int = Field(default=1, ge=0, le=65535)
    api_key: SecretStr | None = None
    names: list[str] = Field(default_factory=list)


FIELDS = list(Settings.model_fields)


def config(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return config_file.read(path)


def layers(tmp_path: Path, text: str, environ: dict[str, str], **flags: object) -> dict[str, SourcedValue]:
    return merge(
        FIELDS,
        flags=flags,
        environ=environ,
        env_prefix="RBEE_TEST_",
        file=config(tmp_path, text),
        table="test",
        credentials={"port": "port"},
    )


def test_the_first_layer_that_has_a_value_wins(tmp_path: Path) -> None:
    """Command line beats environment beats credentials beats file beats default."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "port").write_text("30\n")
    environ = {"RBEE_TEST_PORT": "20", "CREDENTIALS_DIRECTORY": str(folder)}
    text = "[test]\nport = 40\n"

    assert layers(tmp_path, text, environ, port="10")["port"] == SourcedValue("10", "--port")
    assert layers(tmp_path, text, environ)["port"] == SourcedValue("20", "RBEE_TEST_PORT")
    del environ["RBEE_TEST_PORT"]
    assert layers(tmp_path, text, environ)["port"] == SourcedValue("30", "credential port")
    assert layers(tmp_path, text, {})["port"] == SourcedValue(40, f"{tmp_path}/config.toml:2")
    assert validate(Settings, layers(tmp_path, "", {}), ConfigFile(None)).port == 1


def test_every_value_has_a_source(tmp_path: Path) -> None:
    """A setting that no layer has says that it is the default."""
    values = layers(tmp_path, "[test]\nport = 40\n", {})

    assert sources(Settings, values) == {
        "port": f"{tmp_path}/config.toml:2",
        "api_key": "default",
        "names": "default",
    }


def test_an_unknown_key_is_refused_with_file_and_line(tmp_path: Path) -> None:
    """A key that no setting has is named with its file, its line and the keys there are."""
    with pytest.raises(
        ConfigError, match=r"config.toml:3: unknown key 'prot' in \[test\]; known are: .*port"
    ) as caught:
        layers(tmp_path, "# a comment\n[test]\nprot = 40\n", {})

    assert caught.value.line == 3


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    """A variable with the daemon's prefix that no setting has is named."""
    with pytest.raises(ConfigError, match="RBEE_TEST_PROT"):
        layers(tmp_path, "", {"RBEE_TEST_PROT": "1"})


def test_a_wrong_value_is_refused_with_its_source(tmp_path: Path) -> None:
    """A value out of bounds names the key, the reason and where it was set."""
    file = config(tmp_path, "[test]\n\nport = 70000\n")
    values = merge(FIELDS, flags={}, environ={}, env_prefix="RBEE_TEST_", file=file, table="test")

    with pytest.raises(ConfigError, match=r"config.toml:3: port: .*65535"):
        validate(Settings, values, file, "test")
    with pytest.raises(ConfigError, match=r"port: .*RBEE_TEST_PORT"):
        validate(Settings, layers(tmp_path, "", {"RBEE_TEST_PORT": "many"}), ConfigFile(None))


def test_lists_come_from_the_environment_as_json(tmp_path: Path) -> None:
    """A list in the environment is JSON, and anything else there is refused."""
    values = layers(tmp_path, "", {"RBEE_TEST_NAMES": '["a", "b"]'})

    assert validate(Settings, values, ConfigFile(None)).names == ["a", "b"]
    with pytest.raises(ConfigError, match="not JSON"):
        validate(Settings, layers(tmp_path, "", {"RBEE_TEST_NAMES": "a,b"}), ConfigFile(None))


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    """A file that is not TOML is refused with the line where it stops being so."""
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, 'queen_url = "x"\nmodels = [\n')

    assert caught.value.path == str(tmp_path / "config.toml")
    assert caught.value.line is not None


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
