"""fusemix-api: presets, the family, addresses, keys. No request is made here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from fusemix_api import PRESETS, fusemix_encoders
from fusemix_api.address import parse_address

from fusemix_core.errors import ConfigError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=lambda: [])
    for spec in fusemix_encoders():
        registry.add(spec)
    return registry


def test_listing_and_resolving_import_nothing_heavy():
    code = (
        "import sys, fusemix_api as p; p.fusemix_encoders(); p.resolve('http://h/v1#m'); "
        "print([m for m in ('torch', 'numpy', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_family_gives_address_and_model(registry):
    spec = registry.encoder("api:http://localhost:8000/v1#BAAI/bge-m3")
    assert spec.weights == "http://localhost:8000/v1#BAAI/bge-m3"
    assert (spec.modality, spec.takes, spec.dim, spec.environment) == ("text", "text", None, ())


def test_family_of_coheres_style(registry):
    spec = registry.encoder("api:cohere+http://localhost:8000#m")
    assert spec.weights == "cohere+http://localhost:8000#m"
    assert spec.options == {"input_type": "search_document"}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://h/v1/#m", "http://h/v1#m"),
        ("HTTP://Host:80/v1#m", "http://host:80/v1#m"),
        ("https://h#%40cf/baai/bge", "https://h#%40cf/baai/bge"),
        ("http://[::1]:8080/v1#nomic:v1.5", "http://[::1]:8080/v1#nomic:v1.5"),
        ("cohere+https://h#m", "cohere+https://h#m"),
    ],
)
def test_addresses_have_one_form(text, normal):
    address = parse_address(text)
    assert str(address) == normal
    assert parse_address(str(address)) == address


def test_an_at_sign_in_a_models_name(registry):
    assert parse_address("https://h#%40cf/baai/bge").model == "@cf/baai/bge"
    with pytest.raises(ConfigError):
        registry.encoder("api:https://h/v1#m@/tmp")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://h/v1", "names no model"),
        ("http://h/v1#", "names no model"),
        ("bge-m3", "not an address"),
        ("ftp://h#m", "not an address"),
        ("http://h:port#m", "not an address"),
        ("grpc+http://h#m", "not a protocol"),
        ("http://user:secret@h/v1#m", "contains a user"),
        ("https://h/v1?key=secret#m", "contains a user"),
    ],
)
def test_wrong_addresses(text, said):
    with pytest.raises(ConfigError, match=said) as error:
        parse_address(text)
    assert "secret" not in str(error.value)


def test_each_host_has_its_own_key():
    names = [
        parse_address(a).key_variable
        for a in (
            "https://api.openai.com/v1#m",
            "cohere+https://api.cohere.com#m",
            "https://api.mistral.ai/v1#m",
            "https://api.openai.com.evil.example/v1#m",
        )
    ]
    assert names[:3] == ["OPENAI_API_KEY", "COHERE_API_KEY", "FUSEMIX_KEY_API_MISTRAL_AI"]
    assert names[3] == "FUSEMIX_KEY_API_OPENAI_COM_EVIL_EXAMPLE"


def test_fingerprints_are_known_without_a_call_and_follow_address_model_and_options():
    names = ["http://h/v1#a", "http://h/v1#b", "http://g/v1#a", "cohere+http://h/v1#a"]
    small = PRESETS[0]
    specs = [replace(small, weights=name) for name in names]
    specs += [replace(small, options={**small.options, "dimensions": 256}), small]
    prints = [fingerprint(spec, "float32") for spec in specs]
    assert None not in prints and len(set(prints)) == len(prints)
    assert fingerprint(replace(small, name="other"), "float32") == prints[-1]


def test_prices_and_keys_of_the_presets():
    known = {s.name: (s.dim, s.price, s.environment) for s in PRESETS}
    assert known["text-embedding-3-small"] == (1536, 0.02, ("OPENAI_API_KEY",))
    assert known["text-embedding-3-large"] == (3072, 0.13, ("OPENAI_API_KEY",))
    assert known["embed-v4.0"] == (1536, 0.0, ("COHERE_API_KEY",))
    assert known["embed-english-v3.0"] == (1024, 0.0, ("COHERE_API_KEY",))
