"""Stop texts on replies that grow token by token."""

from __future__ import annotations

import random

import pytest

from aprm_jax.sampling.stops import ReplyText, Stops


class Bytes:
    """A tokenizer whose tokens are bytes, or longer texts; counts what it decodes."""

    def __init__(self, *longer: str):
        self.longer, self.decoded = longer, 0

    def __call__(self, ids):
        self.decoded += len(ids)
        parts = (bytes([i]) if i < 256 else self.longer[i - 256].encode() for i in ids)
        return b"".join(parts).decode("utf-8", errors="replace")


class Words(Bytes):
    """Words that a space parts from the one before, not from nothing before."""

    def __call__(self, ids):
        self.decoded += len(ids)
        return " ".join(self.longer[i] for i in ids)


def _run(decode, ids, *texts, before=()):
    reply = ReplyText(Stops((), texts, decode), list(before))
    for count, token in enumerate(ids, start=1):
        if reply.push(token):
            return count, reply.text
    return None, reply.text


@pytest.mark.parametrize("head", ["", "x", "a \n b\n", "é\n"])
def test_a_stop_is_found_however_tokens_cut_it(head):
    text = f"{head}end\n\nmore"
    expected = f"{head}end\n\n"
    assert _run(Bytes(), text.encode(), "\n\n") == (len(expected.encode()), expected)
    whole = Bytes("\n\n", "d\n", "\n\nmore")
    prefix = [*head.encode(), *b"end"]
    assert _run(whole, [*prefix, 256], "\n\n") == (len(prefix) + 1, expected)
    cut = [*prefix[:-1], 257, *b"\nm"]
    assert _run(whole, cut, "\n\n") == (len(prefix) + 1, expected)
    # The token is kept whole, the text is not.
    assert _run(whole, [*prefix, 258], "\n\n") == (len(prefix) + 1, expected)


def test_the_stop_that_ends_first_counts():
    assert _run(Bytes(), b"a STOP here", "here", "STOP") == (6, "a STOP")
    assert _run(Bytes("aXYb"), [256], "XYb", "XY") == (1, "aXY")


def test_the_prompts_end_is_no_part_of_a_stop():
    assert _run(Bytes(), b"\nab\n\n", "\n\n", before=b"2\n") == (5, "\nab\n\n")
    assert _run(Bytes("\n"), b"x", "\n", before=[256]) == (None, "x")


def test_spaces_between_words_are_kept():
    decode = Words("the", "end", ".")
    assert _run(decode, [0, 1, 2, 0], "end .", before=[2]) == (3, " the end .")


def test_characters_of_several_bytes_are_whole():
    text = "aé𝔸 ∑b."
    assert _run(Bytes(), text.encode(), "∑") == (11, "aé𝔸 ∑")
    assert _run(Bytes(), "é".encode(), "x") == (None, "é")
    # The character behind a stop has begun with the stop's last token.
    token = Bytes("\n\n")
    assert _run(token, [97, 256, 0xC3, 0xA9], "\n\n") == (2, "a\n\n")


def test_characters_that_tokens_end_and_begin_at_once_are_whole():
    pieces = [b"\xe2", b"\x82\xac\xf0", b"\x9f", b"\x98\x80"]
    assert _run(_joined(pieces), range(4), "x") == (None, "€😀")
    for seed in range(300):
        pick = random.Random(seed)
        text = "".join(pick.choices("ab\n é€😀", k=20))
        data, pieces = text.encode(), []
        while data:
            cut = pick.randint(1, 5)
            pieces, data = [*pieces, data[:cut]], data[cut:]
        assert _run(_joined(pieces), range(len(pieces)), "none") == (None, text)


def _joined(pieces):
    """A decoder whose token k is the k-th of these bytes."""
    return lambda ids: b"".join(pieces[i] for i in ids).decode(errors="replace")


def test_each_token_is_decoded_a_few_times_whatever_it_is():
    """Also bytes that never become a character, and tokens without a text."""
    for ids in (b"a" * 2000, b"\x80" * 2000, [256] * 2000):
        decode = Bytes("")
        count, _ = _run(decode, ids, "stop", "\n\n")
        assert count is None and decode.decoded <= 20 * 2000


def test_stops_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="empty"):
        Stops((), ("",), str)
    with pytest.raises(ValueError, match="decode"):
        Stops((), ("\n",))
    with pytest.raises(TypeError, match="tuple"):
        Stops((), "\n\n", str)
