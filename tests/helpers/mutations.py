"""Damage to valid inputs: bytes are flipped, cut, spliced; a JSON value gets another type, depth or size at a place.

Whatever is drawn follows from a `random.Random` alone, so that an input can be made again from its seed.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

TEXTS = (
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202e\u2028\x85\ufeff",
    "e\u0301\u200d👩‍👩‍👧‍👦",
    "١٢٣",
    "x" * 5000,
    "\\" * 300,
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\..\\x",
    "~root",
    "file:///etc/passwd",
    "gs://bucket/x",
    "hf://a/b@c",
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "%s%n{0}{x!r}",
    "Task 1 output and task 2 input: a Task 2 output: b",
    "nan",
    "-1",
    "1e999",
    "None",
    "a\nb\r\nc\td",
    "=cmd()",
)
NUMBERS = (0, -1, 1, 2, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**63, 2**64, 10**30, -(10**299), 10**400)
FLOATS = (0.0, -0.0, 0.5, 1e-320, 1e16, -1e308, float("inf"), float("nan"))
TOKENS = (
    b"\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x00\x00\x00\x00\x00\x00\x00\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\\ud800",
    b"\\u0000",
    b'"',
    b"{}",
    b"[[[[",
    b"null",
    b"true",
    b"NaN",
    b"-0",
    b"1e999",
    b"9" * 400,
    b"\r\n",
    b"\n",
    b",",
    b"{{",
    b"{%",
    b"../",
)


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Damage bytes at one to four places; `others` are spliced in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(found) + 1)
        size = min(len(found) - start, int(rng.expovariate(1 / 12)) + 1)
        match rng.randrange(9):
            case 0 | 1 if start < len(found):
                found[start] ^= 1 << rng.randrange(8)
            case 2 if start < len(found):
                found[start] = rng.randrange(256)
            case 3:
                del found[start : start + size]
            case 4:
                found[start:start] = found[start : start + size] * rng.choice((1, 2, 50))
            case 5:
                found[start : start + rng.choice((0, 1, size))] = rng.choice(TOKENS)
            case 6:
                del found[start:]
            case 7 if others:
                other = rng.choice(others)
                found[start:] = other[rng.randrange(len(other) + 1) :]
            case _:
                end = rng.randrange(len(found) + 1)
                found[start : start + size] = found[end : end + size]
    return bytes(found)


def mutate_text(text: str, rng: random.Random, others: Sequence[str] = ()) -> str:
    """Damage a text: parts are moved, repeated, dropped or replaced by odd ones."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + int(rng.expovariate(1 / 12)) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:end] * rng.choice((1, 3, 40)) + text[end:]
            case 2:
                text = text[:start] + rng.choice(TEXTS) + text[rng.choice((start, end)) :]
            case 3:
                text = text[:start] + chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) + text[end:]
            case 4 if others:
                text = text[:start] + rng.choice(others)[start:]
            case _:
                text = text[end:] + text[:start]
    return text


def odd_value(rng: random.Random) -> Any:
    """Return a JSON value of any kind, often an odd one; NaN and infinity are not JSON, but Python writes them."""
    match rng.randrange(8):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice(NUMBERS)
        case 3:
            return rng.choice(FLOATS)
        case 4 | 5:
            return rng.choice(TEXTS)
        case 6:
            return [odd_value(rng) for _ in range(rng.choice((0, 1, 3)))]
    return {rng.choice(TEXTS): odd_value(rng) for _ in range(rng.choice((0, 1, 2)))}


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Change a JSON value, which is changed in place, at one to three random places; return it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _collect(value, places)
        if not places:
            return odd_value(rng)
        holder, key = rng.choice(places)
        _change(holder, key, rng)
    return value


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places.append((value, key))
        _collect(value[key], places)


def _change(holder: Any, key: Any, rng: random.Random) -> None:
    found = holder[key]
    match rng.randrange(9):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.extend([found] * rng.choice((1, 2, 20)))
        case 2:
            holder[rng.choice(("x", *TEXTS))] = found
        case 3:
            holder[key] = nested(found, rng.choice((1, 2, 30, 120)), rng)
        case 4 if isinstance(found, str):
            holder[key] = mutate_text(found, rng)
        case 5 if isinstance(found, int | float):
            holder[key] = rng.choice((-found, found + 1, found * 10**9, str(found), rng.choice(NUMBERS)))
        case 6 if isinstance(found, dict):
            holder[key] = [*found.items()]
        case _:
            holder[key] = odd_value(rng)


def nested(value: Any, depth: int, rng: random.Random) -> Any:
    """Put a value into lists and objects within one another."""
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"x": value}
    return value


def mutate_json_text(text: str, rng: random.Random, others: Sequence[str] = ()) -> bytes:
    """Damage a JSON text: its value, and one time in five its bytes too."""
    if rng.random() < 0.15:
        return mutate_bytes(text.encode("utf-8"), rng, [other.encode("utf-8") for other in others])
    value = mutate_json(json.loads(text), rng)
    data = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate_bytes(data, rng) if rng.random() < 0.1 else data


def mutate_lines(text: str, rng: random.Random) -> bytes:
    """Damage a JSON-lines text: one line of it, and now and then their order and the bytes."""
    lines: list[bytes] = [line.encode("utf-8") for line in text.split("\n") if line]
    place = rng.randrange(len(lines))
    lines[place] = mutate_json_text(lines[place].decode("utf-8"), rng)
    if rng.random() < 0.2:
        lines.append(rng.choice(lines))
    data = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")).join(lines) + b"\n" * (rng.random() < 0.8)
    return mutate_bytes(data, rng) if rng.random() < 0.1 else data


Mutation = Callable[[Any, random.Random], Any]
