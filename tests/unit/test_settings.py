"""The environment wins over the file, the file over the code, and whatever is wrong says where it stands."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from yeondong.errors import SettingsError
from yeondong.settings import Setting, Settings, list_settings, load_settings, mask

Write = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        (tmp_path / "yeondong.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def loaded(
    folder: Path, environ: Mapping[str, str] | None = None, code: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings that are not defaults."""
    settings = load_settings(code, environ=environ or {}, folder=folder)
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(settings, field.name) != field.default
    }


def test_without_any_source_everything_is_the_default(tmp_path: Path) -> None:
    assert load_settings(environ={}, folder=tmp_path) == Settings()


def test_each_source_wins_over_the_next(written: Write) -> None:
    folder = written("lanes = 7\nattempts = 8\n")

    assert loaded(folder, {"YEONDONG_LANES": "6"}, {"lanes": 5, "attempts": 5, "held": 5}) == {
        "lanes": 6,
        "attempts": 8,
        "held": 5,
    }


def test_what_the_code_leaves_open_is_not_set(tmp_path: Path) -> None:
    assert loaded(tmp_path, code={"store": None, "broker": "memory:"}) == {"broker": "memory:"}


def test_the_environments_texts_become_what_is_needed(tmp_path: Path) -> None:
    environ = {
        "YEONDONG_RELAY_IN_WORKER": "false",
        "YEONDONG_LEASE_SECONDS": "0.5",
        "YEONDONG_IN_FLIGHT": "10",
        "YEONDONG_BROKER_MAY_DROP": "statistics, search",
        "YEONDONG_ATTEMPTS": "",
        "UNRELATED": "x",
    }

    assert loaded(tmp_path, environ) == {
        "relay_in_worker": False,
        "lease_seconds": 0.5,
        "in_flight": 10,
        "broker_may_drop": ("statistics", "search"),
    }


def test_the_file_may_have_another_name_and_place(tmp_path: Path) -> None:
    other = tmp_path / "deployed.toml"
    other.write_text('broker_may_drop = ["statistics"]\n', encoding="utf-8")

    assert loaded(Path("/"), {"YEONDONG_CONFIG": str(other)})["broker_may_drop"] == ("statistics",)


def test_the_sources_are_listed_and_passwords_are_not(written: Write) -> None:
    folder = written('store = "postgresql://shop:secret@db/shop"\n')

    listed = {s.name: s for s in list_settings({"lanes": 2}, environ={"YEONDONG_HELD": "9"}, folder=folder)}

    assert list(listed) == [field.name for field in dataclasses.fields(Settings)]
    assert listed["store"] == Setting("store", "postgresql://shop:***@db/shop", str(folder / "yeondong.toml"))
    assert listed["lanes"] == Setting("lanes", 2, "the code")
    assert listed["held"] == Setting("held", 9, "YEONDONG_HELD")
    assert listed["attempts"] == Setting("attempts", 10, "default")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"YEONDONG_LANE": "2"},
            r"no setting named 'lane' \(in YEONDONG_LANE\); did you mean lanes\?.*Known settings: st",
        ),
        ({"YEONDONG_LANES": "0"}, r"lanes = '0' in YEONDONG_LANES cannot be used: Expected `int` >= 1"),
        ({"YEONDONG_LANES": "two"}, r"lanes = 'two' in YEONDONG_LANES cannot be used"),
        ({"YEONDONG_LEASE_SECONDS": "nan"}, "lease_seconds = 'nan' in YEONDONG_LEASE_SECONDS cannot be used"),
        ({"YEONDONG_LEASE_SECONDS": "inf"}, "lease_seconds = 'inf' in YEONDONG_LEASE_SECONDS cannot be used"),
        (
            {"YEONDONG_BROKER": "memory:", "YEONDONG_BROKER_MAY_DROP": "a"},
            "broker_may_drop names a, and the broker memory: drops nothing.*YEONDONG_BROKER_MAY_DROP",
        ),
        ({"YEONDONG_BACKOFF_MOST_SECONDS": "0.5"}, r"backoff_most_seconds \(0.5\) is less than .*BACKOFF_MOST_SECONDS"),
        ({"YEONDONG_CONFIG": "gone.toml"}, "YEONDONG_CONFIG names 'gone.toml', and there is no such file"),
    ],
)
def test_a_wrong_environment_says_where_and_why(environ: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings(environ=environ, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lane = 2", r"no setting named 'lane' \(in .*yeondong\.toml\); did you mean lanes\?"),
        ('lanes = "2"', r"lanes = '2' in .*yeondong\.toml cannot be used: Expected `int`, got `str`"),
        ("[lanes]\nfast = 2", r"lanes = .* in .*yeondong\.toml cannot be used"),
        ("lanes = \nheld = 2", r"yeondong\.toml is no TOML: .*line 1"),
    ],
)
def test_a_wrong_file_says_where_and_why(text: str, sentence: str, written: Write) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings(environ={}, folder=written(text))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "yeondong.toml").mkdir()

    with pytest.raises(SettingsError, match=r"yeondong\.toml cannot be read"):
        load_settings(environ={}, folder=tmp_path)


def test_a_wrong_setting_in_the_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no setting named 'stoer' \(in the code\); did you mean store\?"):
        load_settings({"stoer": "sqlite:///a.db"}, environ={}, folder=tmp_path)


def test_what_other_software_sets_under_our_prefix_passes(tmp_path: Path) -> None:
    """Kubernetes does so for a service of that name, in every container."""
    environ = {"YEONDONG_SERVICE_HOST": "10.0.0.1", "YEONDONG_PORT_80_TCP": "tcp://10.0.0.1:80"}

    assert loaded(tmp_path, environ) == {}


def test_a_bad_value_does_not_show_its_password() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(environ={"YEONDONG_LANES": "postgresql://u:secret@db/x"}, folder=Path("/"))

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://shop:secret@db/shop", "postgresql://shop:***@db/shop"),
        ("redis://:secret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("amqp://shop:se@cr/et@mq//", "amqp://shop:***@mq//"),
        ("postgresql://db/shop?user=shop&password=secret&x=1", "postgresql://db/shop?user=shop&password=***&x=1"),
        ("host=db password=secret dbname=shop", "host=db password=*** dbname=shop"),
        ("shop:secret@db/shop", "shop:***@db/shop"),
        ("sqlite:////home/me@work/shop.db", "sqlite:////home/me@work/shop.db"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("memory:", "memory:"),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_what_is_probably_not_meant_is_said() -> None:
    assert Settings().warnings() == []
    assert "inbox_retention_days (3) is shorter than broker_retention_days (7)" in "\n".join(
        Settings(inbox_retention_days=3).warnings()
    )
    assert "lease_seconds (1) is shorter than heartbeat_seconds (2)" in "\n".join(Settings(lease_seconds=1).warnings())
