"""Secrets stay out of logs, errors, reports and answers.

`redact` takes them out of a text: user, password and query of each address in it, as urllib and
SQLAlchemy read them, and what the environment's variables hold, for a library may quote a part only.
"""

import base64
import contextlib
import functools
import logging
import os
import re
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

HIDDEN = "***"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*")
HEADER = re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}")
VARIABLES = ("PASSWORD", "TOKEN", "SECRET", "KEY", "HEADERS")  # so their names end
PARAMETER = re.compile(r"(?i)pass|pwd|token|secret|key|sig|auth|cred")
SHORT, WORD = 4, 8  # letters from which on a part of an address, a variable is looked for


def redact(text: str) -> str:
    """The text with `***` in place of each secret."""
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return ADDRESS.sub(lambda match: _shown(match[0]), HEADER.sub(rf"\1 {HIDDEN}", text))


def guard() -> None:
    """From now on no record that is logged holds a secret, whichever library's handler writes it."""
    logging.setLogRecordFactory(_record)


def relay(command: list[str], **options: Any) -> int:
    """Run a command whose errors come through `redact`; returns its exit code."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    try:
        for line in process.stderr or ():
            sys.stderr.write(redact(line))
            sys.stderr.flush()
    finally:
        code = process.wait()
    return code


def _record(*given: Any, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord(*given, **more)
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # logging says so itself
        return record
    if (shown := redact(message)) != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[1]:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return record


def _shown(address: str) -> str:
    """An address without user, password, query and fragment."""
    bare = address.rstrip(".,:;'\")>]}")
    scheme, _, place = bare.partition("://")
    user, password, readable = _parsed(bare)
    if user or password:
        place = f"{HIDDEN}@{place.rpartition('@')[2]}"
    elif not readable:  # such as one that was cut off within its password
        place = HIDDEN
    place = re.sub(r"([?#]).*", rf"\1{HIDDEN}", place, flags=re.S)
    return f"{scheme}://{place}{address[len(bare) :]}"


def _parsed(address: str) -> tuple[str, str, bool]:
    """User and password as either parser reads them, and whether one can read the address at all."""
    from sqlalchemy.engine import make_url  # most texts hold no address: no time to import it for
    from sqlalchemy.exc import ArgumentError

    user, password, readable = "", "", False
    with contextlib.suppress(ArgumentError, ValueError):
        made = make_url(address)
        user, password, readable = made.username or "", str(made.password or ""), True
    with contextlib.suppress(ValueError):
        split = urlsplit(address)
        user, password = user or split.username or "", password or split.password or ""
        readable = split.port != 0  # which raises if it is no number
    return user, password, readable


def _known() -> set[str]:
    """The secrets of the environment's variables, in each form that a library gives them."""
    secrets = set[str]()
    for name, value in os.environ.items():
        if "://" in value:
            secrets |= _of_address(value, name.endswith("WEBHOOK"))
        elif name.upper().endswith(VARIABLES):
            parts = {value, *(part.partition("=")[2] for part in value.split(","))}
            secrets |= {form for part in parts if len(part) >= WORD for form in _forms(part)}
    return secrets


@functools.lru_cache(maxsize=256)
def _of_address(address: str, path: bool) -> frozenset[str]:
    """What is secret of an address, also outside of it; `path`: its path is a secret as well."""
    scheme, _, rest = address.partition("://")
    user, password, _ = _parsed(address)
    before, _, after = rest.rpartition("@") if user or password else ("", "", rest)
    whole = before.partition(":")[2]  # to the last @: in this a parser may have seen a host, a path
    words = {password, whole, *re.split(r"[][@/?#:&]", whole)}
    if not whole and scheme.startswith("http"):
        words.add(user)  # a token
    _, _, query = rest.partition("?")
    words |= {value for name, value in parse_qsl(query) if PARAMETER.search(name)}
    if path:
        words |= {after.partition("/")[2], *after.split("/")[1:]}
    shown = "" if path else after.partition("?")[0]  # a password that is its host's name is none
    kept = {word for word in words if len(word) >= SHORT and word not in shown}
    pairs = {f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"} if password else set()
    coded = {base64.b64encode(pair.encode()).decode() for pair in pairs}
    return frozenset(form for word in kept for form in _forms(word)) | coded


def _forms(secret: str) -> set[str]:
    plain = {secret, unquote(secret), unquote_plus(secret)}
    forms = {form for word in plain for form in (word, quote(word, ""), quote_plus(word))}
    forms |= {word.encode("unicode_escape").decode() for word in plain}
    return {form for form in forms if form}
