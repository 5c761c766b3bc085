"""What a config file declares to be served: each table by itself, all together, and where it is wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from rbee.config import served
from rbee.config.file import ConfigFile, read
from rbee.errors import ConfigError
from rbee.queen.serving.files import read_declared


def config(path: Path, text: str) -> ConfigFile:
    path.write_text(dedent(text))
    return read(path)


def wrong(path: Path, text: str) -> list[str]:
    """Return what is wrong with a file, without its path."""
    _, errors = served.read_tables(config(path, text), {"tiny": "hf:org/tiny"})
    return [error.message.replace(f"{path}:", "") for error in errors]


def test_a_table_is_a_declared_model(tmp_path: Path) -> None:
    """A name may have dots, in quotes; an alias is its reference; times may have units; a table knows its line."""
    file = config(
        tmp_path / "c.toml",
        """\
        [models]
        tiny = "hf:org/tiny"
        [served."qwen3.5"]
        model = "tiny"
        keep = "2h"
        where = { nodes = ["attic"], backend = "cuda" }
        [served."qwen3.5".presets.exact]
        temperature = 0
        [served.plain]
        model = "hf:org/repo"
        """,
    )

    first, second = read_declared(file, None)

    assert (first.model.name, first.model.model, first.model.keep) == ("qwen3.5", "hf:org/tiny", 7200)
    assert first.model.where.nodes == ("attic",)
    assert first.model.names == ("qwen3.5", "exact")
    assert (first.place, second.place) == (f"{file.path}:3", f"{file.path}:9")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            'modl = "tiny"',
            ["2: [served.a] unknown key 'modl'; did you mean 'model'?", "1: [served.a] 'model' is required."],
        ),
        (
            'model = "tinny"',
            ["2: [served.a] model: 'tinny' is not a model reference", "did you mean the alias 'tiny'?"],
        ),
        ('model = "hf:tiny"', ["2: [served.a] model: 'hf:tiny' is not a model reference: after hf: comes org/repo"]),
        ('model = "tiny"\nkeep = "soon"', ["3: [served.a] keep: 'soon' is no time"]),
        ('model = "tiny"\nreplicas = -1', ["3: [served.a] replicas: Input should be greater than or equal to 0."]),
        (
            'model = "tiny"\nwhere = { node = ["x"] }',
            ["3: [served.a] unknown key 'node' in 'where'; did you mean 'nodes'?"],
        ),
        ('model = "tiny"\ndevices = [0]', ["3: [served.a] unknown key 'devices'; did you mean 'where.devices'?"]),
        ('model = "tiny"\nlora = []', ["3: [served.a] 'lora' (LoRA adapters) is not built yet"]),
        ('model = "tiny"\nname = "b"', ["3: [served.a] unknown key 'name'; the name is that of the table."]),
        (
            'model = "tiny"\n[served.a.presets.b]\ntemperature = 3',
            ["4: [served.a] presets.b.temperature: Input should be"],
        ),
        ('model = "tiny"\n[served.a.presets."b c"]\ntop_p = 1', ["3: [served.a] 'b c' cannot be a name"]),
        ('model = "tiny"\npresets.b.system = "\\u0007"', ["[served.a] presets: holds a control character (U+0007)"]),
        ('model = "tiny"\ncache_type = "q8_0"\nflash_attention = false', ["1: [served.a] ", "flash attention"]),
    ],
)
def test_a_wrong_key_is_told_with_its_line(tmp_path: Path, lines: str, expected: list[str]) -> None:
    """File, line and key, the reason, and what was probably meant."""
    found = "\n".join(wrong(tmp_path / "c.toml", "[served.a]\n" + lines))

    assert [part for part in expected if part not in found] == [], found


def test_what_is_no_table_or_has_no_name_is_told(tmp_path: Path) -> None:
    """`served` holds tables, whose names clients can ask for."""
    assert wrong(tmp_path / "a.toml", "[served]\na = 3") == ["2: 'served.a' must be a table, written [served.a]."]
    assert "1: [served.a b] 'a b' cannot be a name" in wrong(tmp_path / "b.toml", '[served."a b"]\nmodel = "tiny"')[0]
    assert "must be a table" in wrong(tmp_path / "c.toml", "served = 3")[0]


def test_two_files_are_taken_together(tmp_path: Path) -> None:
    """A name in both, a fallback to nothing, and what is no declaration are told of the file that has them."""
    own = config(tmp_path / "queen.toml", '[queen]\nport = 1\n[served.a]\nmodel = "hf:org/a"\nfallback = ["b"]\n')
    more = tmp_path / "served.toml"
    config(more, '[served.b]\nmodel = "hf:org/b"\n')
    assert [each.model.name for each in read_declared(own, more)] == ["a", "b"]

    config(more, '[served.a]\nmodel = "hf:org/b"\n[served.c]\nmodel = "hf:org/b"\nfallback = ["d"]\n')
    with pytest.raises(ConfigError) as caught:
        read_declared(own, more)
    found = {error.message for error in (caught.value, *caught.value.also)}
    assert f"{more}:1: the name a is declared twice." in found
    assert f"{more}:3: c falls back to d, which is not declared." in found

    config(more, "[queen]\nport = 3\n")
    with pytest.raises(ConfigError, match=r"served.toml:1: 'queen' does not belong here"):
        read_declared(own, more)
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read"):
        read_declared(own, tmp_path / "none.toml")
