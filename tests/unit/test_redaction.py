"""What must not be repeated is gone from a text, however it is written there; what helps to understand stays."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from time import perf_counter
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from renderbell.redaction import redacted, redacted_start

KEY = "sk-Top/Secret+123&=\\"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # what stays
        ("", ""),
        ("out of memory", "out of memory"),
        ("is the key valid? no", "is the key valid? no"),
        ("what?! why?", "what?! why?"),
        ("see https://docs.example.com/errors/5.", "see https://docs.example.com/errors/5."),
        ("did you mean https://h.example.com/p?", "did you mean https://h.example.com/p?"),
        ("issue #5 of a//b", "issue #5 of a//b"),
        ("write to me@example.com", "write to me@example.com"),
        ("https://h.example.com/@user/1.mp4", "https://h.example.com/@user/1.mp4"),
        ("token expired, key missing", "token expired, key missing"),
        ("token: expired", "token: expired"),
        ("a monkey=business", "a monkey=business"),
        ("bearer of bad news", "bearer of bad news"),
        ("HTTP 500: rate=5 code=7", "HTTP 500: rate=5 code=7"),
        # links
        ("GET https://h.example.com/v.mp4?sig=s3cret failed", "GET https://h.example.com/v.mp4?… failed"),
        ("https://h.example.com?s3cret", "https://h.example.com?…"),
        ("https://h.example.com/a#s3cret", "https://h.example.com/a?…"),
        ("(https://h/a?x=1)", "(https://h/a?…"),
        ("two: http://a/b?s3cret https://c/d?s3cret", "two: http://a/b?… https://c/d?…"),
        ("//h.example.com/p?s3cret", "//h.example.com/p?…"),
        ("HTTPS://H/P?S3cret", "HTTPS://H/P?…"),
        ("s3://bucket/key?s3cret", "s3://bucket/key?…"),
        ("<a href='https://h/p?s3cret'>", "<a href='https://h/p?…>"),
        ('{"url":"https://h/p?s3cret","e":"boom"}', '{"url":"https://h/p?…","e":"boom"}'),
        ('"https:\\/\\/h\\/p?s3cret"', '"https:\\/\\/h\\/p?…"'),
        ('"https:\\/\\/h\\/p\\u003fa=s3cret\\u0026b=s3cret"', '"https:\\/\\/h\\/p?…"'),
        ("https:\\\\/\\\\/h\\\\/p\\\\u003Fs3cret", "https:\\\\/\\\\/h\\\\/p?…"),
        ("https:\\u002f\\u002Fh\\u002fp?s3cret", "https:\\u002f\\u002Fh\\u002fp?…"),
        ("to=https%3A%2F%2Fh%2Fp%3Fs3cret%26x", "to=https%3A%2F%2Fh%2Fp?…"),
        ("https%253a%252f%252fh%252fp%253fs3cret", "https%253a%252f%252fh%252fp?…"),
        ("https%3A//h/p%3Fs3cret", "https%3A//h/p?…"),
        ("Max retries exceeded with url: /v.mp4?s3cret", "Max retries exceeded with url: /v.mp4?…"),
        # users of links
        ("https://me:s3cret@h.example.com/p", "https://h.example.com/p"),
        ("https://s3cret@h/p?s3cret", "https://h/p?…"),
        ("https:\\/\\/me:s3cret@h\\/p", "https:\\/\\/h\\/p"),
        ("https%3A%2F%2Fme%3As3cret%40h%2Fp", "https%3A%2F%2Fh%2Fp"),
        ("https://me:s3@cret@h/p", "https://h/p"),
        ("https://me:s3?cret@h/p", "https://?…"),
        ("a=http://x:s3cret@b/c,d=http://y:s3cret@e/f", "a=http://b/c,d=http://e/f"),
        # parameters that stand alone
        ("X-Amz-Signature=s3cret", "X-Amz-Signature=***"),
        ("X-Amz-Security-Token=s3cret&X-Amz-Date=20261122", "X-Amz-Security-Token=***&X-Amz-Date=20261122"),
        ("bad Signature=s3cret, sig = s3cret", "bad Signature=*** sig = ***"),
        ("token=s3cret key=s3cret sign=s3cret", "token=*** key=*** sign=***"),
        ("access_token=s3cret api-key=s3cret auth_key=s3cret", "access_token=*** api-key=*** auth_key=***"),
        ("a%26sig%3Ds3cret", "a%26sig%3D***"),
        ("a\\u0026sig\\u003ds3cret", "a\\u0026sig\\u003d***"),
        ("x-oss-signature=s3cret", "x-oss-signature=***"),
        ('{"access_token": "s3cret", "step": "upload"}', '{"access_token": "***", "step": "upload"}'),
        ('{\\"apiKey\\":\\"s3cret\\"}', '{\\"apiKey\\":\\"***\\"}'),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        ('{"authorization":"Basic s3cret"}', '{"authorization":"Basic ***"}'),
        ("sent Bearer abcdefgh12345678s3cret", "sent Bearer ***"),
    ],
)
def test_a_text_keeps_what_helps_and_loses_what_opens_doors(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        json.dumps(KEY)[1:-1],
        json.dumps(json.dumps(KEY))[1:-1],
        KEY.replace("/", "\\/"),
        quote(KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower().replace("sk-top", "sk-Top").replace("secret", "Secret"),
        quote(quote(KEY, safe=""), safe=""),
        "sk-Top\\u002fSecret\\u002B123\\u0026\\u003d\\u005c",
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(f"me:{KEY}:more".encode()).decode(),
        base64.urlsafe_b64encode(f"user:x{KEY}".encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form_that_it_is_repeated_in(form: str) -> None:
    left = redacted(f"the key {form} is wrong", [KEY])
    assert form not in left
    assert form[4:-4] not in left
    assert left.startswith("the key ")
    assert left.endswith(" is wrong")


def test_several_secrets_are_replaced_the_longest_first() -> None:
    assert redacted("abcdef abc x", ["abc", "", "abcdef"]) == "*** *** x"


def test_a_secret_in_other_letters_is_another_word() -> None:
    assert redacted("SK-TOP and sk-top", ["sk-top"]) == "SK-TOP and ***"


MARK = "Q7"  # in none of the texts around it
QUERY = st.text("abcXYZ019-._~!$&'()*+,;=:@/?%[]|{}`^\\é…", max_size=20)
WORDS = st.sampled_from(["", "see ", "error: ", "HTTP 500: ", '{"url": "', "(", "'", "a=", "x" * 50, "who? ", "//"])
LINKS = st.sampled_from(["https://cdn.example.com/a/b.mp4", "http://10.0.0.1:8080", "//h/p", "HTTPS://[::1]/x%20y"])
WRITTEN = st.sampled_from(
    [
        lambda url: url,
        lambda url: json.dumps(url)[1:-1],
        lambda url: json.dumps(url)[1:-1].replace("/", "\\/"),
        lambda url: json.dumps(url.replace("?", "\x00"))[1:-1].replace("\\u0000", "\\u003f").replace("&", "\\u0026"),
        lambda url: quote(url, safe=""),
        lambda url: quote(url, safe="").replace("%3F", "%3f").replace("%2F", "%2f"),
        lambda url: quote(quote(url, safe=""), safe=""),
        lambda url: json.dumps(json.dumps(url))[1:-1],
        repr,
    ]
)


AFTER = st.sampled_from(["", " failed", '"', "') and more", '","e":"x"}'])


@given(WORDS, LINKS, st.tuples(QUERY, QUERY).map(MARK.join), WRITTEN, AFTER)
def test_a_secret_in_a_links_query_never_survives(
    before: str, link: str, query: str, written: Callable[[str], str], after: str
) -> None:
    text = before + written(f"{link}?{query}") + after
    assert MARK in text
    shown = redacted(text)
    assert MARK not in shown
    assert redacted(shown) == shown


@given(st.text(), st.text("ab/+=\\\"'&?%# é\U0001f600", min_size=1, max_size=8), st.text())
def test_a_secret_never_survives_in_any_text(before: str, secret: str, after: str) -> None:
    assume(secret not in "***?…")
    for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
        shown = redacted(f"{before}{form}{after}", [secret])
        assert secret not in shown.replace("***", "").replace("?…", "") or secret in before + after


@given(st.text())
def test_any_text_is_read_and_what_was_redacted_stays_as_it_is(text: str) -> None:
    shown = redacted(text, ["k"])
    assert redacted(shown, ["k"]) == shown


@pytest.mark.parametrize(
    "piece", ["/", "//", "\\", "%25", "a", "?", "//a", "@", "%2F", "token", '"', "//a@", "sig ", "-"]
)
def test_a_very_long_text_takes_no_very_long_time(piece: str) -> None:
    began = perf_counter()
    redacted(piece * 100_000, [KEY])
    assert perf_counter() - began < 5


@pytest.mark.parametrize("before", range(0, 200, 7))
def test_a_secret_at_the_edge_of_what_is_read_is_not_shown_in_part(before: int) -> None:
    secret = "sk-" + "top" * 20
    link = "https://h/p?".ljust(16_000 - before, "x")  # it becomes short, so what stood at the edge comes into sight
    shown = redacted_start(f"{link} {secret}{'.' * 5000}", 1000, [secret])
    assert "top" not in shown


def test_the_start_of_a_text_is_as_long_as_it_may_be() -> None:
    assert redacted_start("a" * 50, 100) == "a" * 50
    assert redacted_start("a" * 5000, 100, ["key"]) == "a" * 100


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON twice": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "a URL": lambda secret: quote(secret, safe=""),
    "a URL twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "JSON's own escapes": lambda secret: "".join(
        f"\\u{ord(one):04X}" if not one.isalnum() and one != " " else one for one in secret
    ),
}
ODD = st.text('\\\\\\/%25cCu0"+ a', min_size=4, max_size=20).filter(lambda text: text.strip() == text)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(deadline=None, max_examples=50)
@example(secret="\\%5C", after="")
@given(secret=st.one_of(ODD, ODD.map(lambda text: (text * 60)[:1024].strip())), after=st.sampled_from(["", "x", "\n"]))
def test_a_secret_full_of_what_escapes_are_made_of_is_found(
    form: Callable[[str], str], secret: str, after: str
) -> None:
    left = redacted(f"<{form(secret)}>{after}", [secret])
    assert form(secret) not in left
    assert "***" in left


@pytest.mark.parametrize("number", [1, 8, 26, 200, 1024])
@pytest.mark.parametrize("between", ["", "a", "/", "u005c"])
def test_a_secret_of_many_backslashes_takes_no_very_long_time(number: int, between: str) -> None:
    piece = "\\" * number + between
    secret = (piece * 1024)[:1024] if between else piece
    began = perf_counter()
    for text in ("\\" * 8192, ("\\" * (number - 1) + "x") * 8, (piece * 8192)[:8191], (piece + "x") * 8):
        redacted(text[:8192], [secret])
    assert perf_counter() - began < 5, "one more backslash would double it"


def test_ten_long_secrets_of_odd_characters_are_soon_looked_for(measured: Callable[[str], None]) -> None:
    secrets = [(f"{number}" + '+/=&"' * 300)[:1024] for number in range(10)]
    began = perf_counter()
    assert redacted("boom " + secrets[3], secrets) == "boom ***"
    took_s = perf_counter() - began
    measured(f"ten secrets of 1,024 odd characters, looked for first: {took_s:.2f} s")
    assert took_s < 2


def test_a_very_long_secret_is_hidden_to_its_end() -> None:
    secret = "head+" * 20 + "middle" * 10 + "/tail" * 20
    for text in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        assert redacted(f"see {text} and {text}.", [secret]) == "see *** and ***."
    assert "middle" not in redacted(f"see {secret[:-1]}", [secret]), "broken off before its end"
