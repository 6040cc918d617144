"""No text shows the password of an address, quoted rightly or not."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matris.errors import MatrisError, StoreError
from matris.masking import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at mongodb://me:secret@h:1/d now", "at mongodb://me:***@h:1/d now"),
        ("mongodb+srv://me:a%40b@c.net/d?tls=true", "mongodb+srv://me:***@c.net/d?tls=true"),
        ("MongoDB://me:secret@h", "MongoDB://me:***@h"),
        ("mongodb://me:se@cr/e?t#@h/d", "mongodb://***@h/d"),
        ("mongodb://me:se cret@h/d", "mongodb://me:***@h/d"),
        ("mongodb://:secret@h/d", "mongodb://***@h/d"),
        ("mongodb://a:secret@h1/d and mongodb://b:secret@h2/d", "mongodb://a:***@h1/d and mongodb://b:***@h2/d"),
        ("JobStore-mongo://mongodb://me:secret@h/d/c", "JobStore-mongo://mongodb://me:***@h/d/c"),
        ("mongodb://h/?tlsCertificateKeyFilePassword=secret&w=1", "mongodb://h/?tlsCertificateKeyFilePassword=***&w=1"),
        ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:secret", "mongodb://h/?authMechanismProperties=***"),
        ("{'uri': 'mongodb://me:secret@h/d', 'n': 1}", "{'uri': 'mongodb://me:***@h/d', 'n': 1}"),
        ("mongodb://one:27017,two:27017/d?replicaSet=a", "mongodb://one:27017,two:27017/d?replicaSet=a"),
        ("mongodb://me@h/d", "mongodb://me@h/d"),
        ("write to me@example.org", "write to me@example.org"),
    ],
)
def test_addresses(text, shown):
    assert masked(text) == shown


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_any_password(password):
    for written in {password, quote(password, safe="")}:
        assert masked(f"store mongodb://me:{written}@host.org:27017/db, folder x").rpartition("***")[1:] == (
            "***",
            "@host.org:27017/db, folder x",
        )


def test_errors_are_masked():
    error = StoreError("mongodb://me:secret@h/d does not answer")
    assert (str(error), repr(error)) == (
        "mongodb://me:***@h/d does not answer",
        "StoreError('mongodb://me:***@h/d does not answer')",
    )
    assert MatrisError("a", 3).args == ("a", 3)
