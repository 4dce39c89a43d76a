"""Subjects and patterns: the rules, and that covering means what it says."""

from hypothesis import given
from hypothesis import strategies as st

from crucible.core import subjects

WORDS = st.sampled_from(["a", "b", "notes"])
SUBJECTS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda words, end: ".".join([*words, *end]),
    st.lists(st.one_of(WORDS, st.just("*")), min_size=1, max_size=4),
    st.sampled_from([(), (">",)]),
)


def fits(pattern: str, subject: str) -> bool:
    """Say the same in the dullest way."""
    mine, theirs = pattern.split("."), subject.split(".")
    if mine[-1] == ">":
        mine, theirs = mine[:-1], theirs[: len(mine) - 1] if len(theirs) >= len(mine) else ["?"] * 99
    return len(mine) == len(theirs) and all(m in ("*", t) for m, t in zip(mine, theirs, strict=True))


@given(PATTERNS, SUBJECTS)
def test_a_pattern_covers_a_subject_that_fits_it(pattern: str, subject: str) -> None:
    assert subjects.covers(pattern, subject) == fits(pattern, subject)


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_what_is_covered_reaches_nothing_more(granted: str, wanted: str, subject: str) -> None:
    if subjects.covers(granted, wanted) and fits(wanted, subject):
        assert fits(granted, subject)


def test_covering_is_exact_at_the_edges() -> None:
    assert subjects.covers("notes.>", "notes.*.x")
    assert subjects.covers("notes.*", "notes.*")
    assert subjects.covers(">", ">")
    assert not subjects.covers("notes.>", "notes")
    assert not subjects.covers("notes.*", "notes.>")
    assert not subjects.covers("*.saved", ">")
    assert not subjects.covered((), "a")


def test_what_is_a_subject_and_what_a_pattern() -> None:
    good = ["a", "a.b", "A-b_9.c", ".".join("a" * 16)]
    only_patterns = ["*", ">", "a.*", "a.>", "*.a.>"]
    neither = [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.>.b",
        "a*",
        "ä",
        "a\n",
        "$x",
        ".".join("a" * 17),
        "a" * 256,
    ]
    assert [text for text in good if not (subjects.is_subject(text) and subjects.is_pattern(text))] == []
    assert [text for text in only_patterns if subjects.is_subject(text)] == []
    assert [text for text in only_patterns if not subjects.is_pattern(text)] == []
    assert [text for text in neither if subjects.is_subject(text) or subjects.is_pattern(text)] == []
