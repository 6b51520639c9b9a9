"""Payload classes of every sort travel as JSON, and what does not fit says why."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from yeondong.core.codec import UNDECODABLE, UNENCODABLE, Codec, undecodable
from yeondong.errors import DeclarationError, Undecodable


class Struct(msgspec.Struct, frozen=True):
    id: int
    name: str = ""


@dataclass(frozen=True)
class Plain:
    id: int
    name: str = ""


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: int
    name: str = pydantic.Field(default="", alias="fullName")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shouted(self) -> str:
        return self.name.upper()


class Doubting(msgspec.Struct):
    rate: Decimal

    def __post_init__(self) -> None:
        {Decimal(1): "known"}[self.rate]


class Grown(msgspec.Struct):
    age: int

    def __post_init__(self) -> None:
        if self.age < 18:
            raise AssertionError  # as ``assert`` does


class Nested(msgspec.Struct):
    inner: "Nested | None" = None


SORTS = [Struct(1, "a"), Plain(1, "a"), Model(id=1, fullName="a")]


@pytest.mark.parametrize("payload", SORTS)
def test_what_is_encoded_decodes_to_the_same(payload: Any) -> None:
    codec = Codec()
    encoded = codec.encoder(type(payload))(payload)

    assert codec.decoder(type(payload))(encoded) == payload


def test_a_models_aliases_are_written_and_its_computed_fields_are_not() -> None:
    assert Codec().encoder(Model)(Model(id=1, fullName="a")) == b'{"id":1,"fullName":"a"}'


def test_decoding_a_struct_is_one_call_of_msgspec() -> None:
    decode: Any = Codec().decoder(Struct)

    assert isinstance(decode.__self__, msgspec.json.Decoder)


@pytest.mark.parametrize("cls", [Struct, Plain, Model])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"id":"x"}', b"\xff", b"[]", b"null", b'{"id":1} x', None])
def test_content_that_does_not_fit_raises_what_is_documented(cls: type, content: Any) -> None:
    decode = Codec().decoder(cls)

    with pytest.raises(UNDECODABLE) as raised:
        decode(content)

    sentence = undecodable("Thing", content, raised.value)
    assert str(sentence).startswith("the data does not decode as Thing: ")
    assert sentence.type == "Thing"
    assert "\n" not in str(sentence)


@pytest.mark.parametrize(
    ("cls", "content", "reason"),
    [
        (Struct, b'{"id":"x"}', "Expected `int`, got `str` - at `$.id`"),
        (Model, b'{"id":"hush"}', "unable to parse string as an integer - at `$.id`"),
        (Struct, None, "no data (it is a tombstone)"),
        (Doubting, b'{"rate":"2"}', "Decimal('2')"),
        (Grown, b'{"age":7}', "AssertionError"),
        (Nested, b'{"inner":' * 100_000, "nested too deeply"),
    ],
)
def test_the_reason_names_the_place_and_not_the_content(cls: type, content: Any, reason: str) -> None:
    error = error_of(Codec().decoder(cls), content)

    assert reason in undecodable(cls.__name__, content, error).reason
    assert "hush" not in undecodable(cls.__name__, content, error).reason


def error_of(decode: Callable[[bytes], Any], content: Any) -> BaseException:
    with pytest.raises(UNDECODABLE) as raised:
        decode(content)
    return raised.value


@pytest.mark.parametrize("value", [object(), "\ud800", 1 + 2j])
def test_a_value_without_json_raises_what_is_documented(value: Any) -> None:
    payload = Struct(value)

    with pytest.raises(UNENCODABLE):
        Codec().encoder(Struct)(payload)


class Unknown:
    pass


class Ambiguous(msgspec.Struct):
    items: list[int] | tuple[int, ...]


def test_a_class_that_cannot_carry_a_payload_is_refused() -> None:
    with pytest.raises(DeclarationError, match="Unknown is no msgspec struct, no dataclass and no pydantic model"):
        Codec().encoder(Unknown)


def test_a_class_that_nothing_can_fit_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Ambiguous cannot be decoded: .*change the annotation"):
        Codec().decoder(Ambiguous)


def test_a_name_that_is_not_defined_is_found_before_the_first_message() -> None:
    struct = msgspec.defstruct("Dangling", [("other", "Nowhere")])
    model = type("Loose", (pydantic.BaseModel,), {"__annotations__": {"other": "Nowhere"}, "__module__": __name__})

    for cls in (struct, model):
        with pytest.raises(DeclarationError, match="'Nowhere' is not defined"):
            Codec().decoder(cls)


def test_pydantic_is_not_imported_for_those_who_do_not_use_it() -> None:
    program = """
import sys
from yeondong.messaging.messages import Event, spec_of
class Moved(Event, channel="moves"):
    steps: int
assert spec_of(Moved).decode(b'{"steps":1}') == Moved(1)
assert "pydantic" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_undecodable_is_an_error_of_ours() -> None:
    assert isinstance(undecodable("Thing", b"", ValueError("flawed")), Undecodable)
