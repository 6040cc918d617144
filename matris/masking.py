"""Secrets in texts: passwords in addresses of databases."""

from __future__ import annotations

import re

# passwords that are not quoted may hold any character, so an address reaches to the last @ of its line
_ADDRESS = re.compile(r"(mongodb(?:\+srv)?://)((?:(?:(?!mongodb(?:\+srv)?://).)*@)?[^\s'\"<>]*)", re.IGNORECASE)
_USER = re.compile(r"[^:@/?#]+(?=:[^:@/?#]*$)")
_SECRET_OPTION = re.compile(r"([?&;][^=&;]*(?:password|passphrase|authmechanismproperties)=)[^&;]*", re.IGNORECASE)


def masked(text: str) -> str:
    """
    Replace passwords in the MongoDB addresses of a text by ``***``.

    A user name that stands in front of a password is shown, unless the address is malformed: then all that may belong
    to the password is replaced. Options that hold a secret, such as ``tlsCertificateKeyFilePassword``, are replaced
    too.

    Parameters
    ----------
    text
        Message, name of a store, command line, or address.

    Examples
    --------
    >>> masked("no campaign in mongodb://me:secret@localhost:27017/screening?tls=true")
    'no campaign in mongodb://me:***@localhost:27017/screening?tls=true'
    >>> masked("mongodb://me:not/quoted@once@localhost/screening")
    'mongodb://***@localhost/screening'
    >>> masked("mongodb://localhost/screening")
    'mongodb://localhost/screening'
    """
    return _ADDRESS.sub(lambda found: found[1] + _without_secrets(found[2]), text)


def _without_secrets(address: str) -> str:
    """Mask what stands between the scheme and the hosts of an address, and its secret options."""
    credentials, at, rest = address.rpartition("@")
    if at:
        user = _USER.match(credentials)
        credentials = f"{user[0]}:***" if user else "***" if ":" in credentials else credentials
    return _SECRET_OPTION.sub(r"\1***", credentials + at + rest)
