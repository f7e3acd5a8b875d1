"""Perl-compatible regular expressions by the distribution's libpcre2 (pcre2api(3)), as keepalived has them.

Python's ``re`` is another language, and its searches have no limit: here a pattern that goes back and forth over a hostile page
gives up.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Final

from relevo.errors import HostError
from relevo.model.checks import REGEX_OPTIONS

MATCH_LIMIT: Final = 200_000
"""Steps of one search: some milliseconds."""
HEAP_LIMIT_KB: Final = 4096
LIBRARY: Final = "libpcre2-8.so.0"
_NO_MATCH: Final = -1
_PATTERNS: Final = 1024
"""Compiled patterns that are kept."""


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(f"{LIBRARY} is missing, which regex needs", hint="install the package libpcre2-8-0") from error
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
    for name, result, arguments in (
        ("compile", pointer, (ctypes.c_char_p, size, number, pointer, pointer, pointer)),
        ("code_free", None, (pointer,)),
        ("match_data_create_from_pattern", pointer, (pointer, pointer)),
        ("match_context_create", pointer, (pointer,)),
        ("set_match_limit", ctypes.c_int, (pointer, number)),
        ("set_heap_limit", ctypes.c_int, (pointer, number)),
        ("match", ctypes.c_int, (pointer, ctypes.c_char_p, size, size, number, pointer, pointer)),
        ("get_ovector_pointer", ctypes.POINTER(size), (pointer,)),
        ("get_error_message", ctypes.c_int, (ctypes.c_int, ctypes.c_char_p, size)),
    ):
        function = getattr(library, f"pcre2_{name}_8")
        function.restype, function.argtypes = result, arguments
    return library


@lru_cache(maxsize=1)
def _limits() -> int:
    library = _library()
    context: int = library.pcre2_match_context_create_8(None)
    library.pcre2_set_match_limit_8(context, MATCH_LIMIT)
    library.pcre2_set_heap_limit_8(context, HEAP_LIMIT_KB)
    return context


def load() -> None:
    """Load the library, which a confined process cannot do later; ``HostError`` if it is missing."""
    _limits()


class Pattern:
    """A compiled pattern. ``HostError`` if it is invalid, or the library is missing."""

    def __init__(self, text: str, options: tuple[str, ...]) -> None:
        library, encoded = _library(), text.encode("utf-8", "surrogateescape")
        bits = sum(1 << REGEX_OPTIONS.index(option) for option in options)
        number, offset = ctypes.c_int(), ctypes.c_size_t()
        self._code = library.pcre2_compile_8(encoded, len(encoded), bits, ctypes.byref(number), ctypes.byref(offset), None)
        if not self._code:
            raise HostError(f"regex '{text}' is invalid at character {offset.value}: {_message(number.value)}")
        self._data = library.pcre2_match_data_create_from_pattern_8(self._code, None)

    def search(self, subject: bytes, start: int = 0) -> int | None:
        """Return where the first match from ``start`` on begins, ``None`` if there is none; ``HostError`` beyond the limits."""
        if start > len(subject):
            return None
        library = _library()
        found = library.pcre2_match_8(self._code, subject, len(subject), start, 0, self._data, _limits())
        if found == _NO_MATCH:
            return None
        if found < 0:
            raise HostError(f"the search was given up: {_message(found)}")
        return int(library.pcre2_get_ovector_pointer_8(self._data)[0])


@lru_cache(maxsize=_PATTERNS)
def pattern(text: str, options: tuple[str, ...]) -> Pattern:
    """Return the pattern, compiled once."""
    return Pattern(text, options)


def _message(number: int) -> str:
    buffer = ctypes.create_string_buffer(256)
    _library().pcre2_get_error_message_8(number, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
