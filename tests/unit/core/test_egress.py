"""Where a plugin may connect: rules, names, and every odd way to write an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.egress import Denial, Grant, judge_addresses, judge_name, read_grant, special
from crucible.model.egress import Rule, is_name, parse_rule

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(parse_rule(text) for text in texts)


def dial(host: str, port: int, *texts: str) -> object:
    """Ask for an address, and return what may be dialled or the line that would allow it."""
    found = judge_addresses(rules(*texts), [ip_address(host)], port)
    return found.grant if isinstance(found, Denial) else [str(one) for one in found]


@pytest.mark.parametrize(
    ("rule", "name", "port", "fits"),
    [
        ("api.example.com:443", "api.example.com", 443, True),
        ("API.Example.com.:443", "api.example.com", 443, True),
        ("api.example.com:443", "api.example.com", 80, False),
        ("api.example.com:443", "xapi.example.com", 443, False),
        ("api.example.com:443", "api.example.com.evil.org", 443, False),
        ("api.example.com:*", "api.example.com", 80, True),
        ("*.example.com:443", "a.example.com", 443, True),
        ("*.example.com:443", "a.b.example.com", 443, True),
        ("*.example.com:443", "example.com", 443, False),
        ("*.example.com:443", "evilexample.com", 443, False),
        ("*:443", "anything.org", 443, True),
        ("*:443", "anything.org", 22, False),
        ("10.0.0.0/8:443", "anything.org", 443, False),
    ],
)
def test_a_name_is_in_the_list_or_is_not_asked_for(rule: str, name: str, port: int, fits: bool) -> None:
    denial = judge_name(rules(rule), name, port)
    assert (denial is None) == fits
    if denial is not None:
        assert denial.grant == f"{name}:{port}"
        assert judge_name(rules(denial.grant), name, port) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("example.com", "names no port"),
        ("example.com:", "is no port"),
        ("example.com:0", "is no port"),
        ("example.com:65536", "is no port"),
        ("example.com:\uff19", "is no port"),
        ("example.com:443:443", "in brackets"),
        ("2001:db8::1:443", "in brackets"),
        ("[2001:db8::1]", "in brackets"),
        ("[192.0.2.1]:443", "brackets are for IPv6"),
        ("[::ffff:10.0.0.1]:443", "write the IPv4 address itself"),
        ("[fe80::1%eth0]:443", "fe80"),
        ("10.0.0.1/8:443", "host bits"),
        ("010.0.0.1:443", "010"),
        ("0x7f.1:443", "0x7f"),
        ("127.1:443", "127.1"),
        ("2130706433:443", "2130706433"),
        ("exa*mple.com:443", "no host name"),
        ("a.*.example.com:443", "no host name"),
        ("**.example.com:443", "no host name"),
        ("https://example.com:443", "in brackets"),
        ("exämple.com:443", "no host name"),
        ("user@example.com:443", "no host name"),
        (":443", "names no port"),
        ("-a.com:443", "no host name"),
    ],
)
def test_a_rule_that_is_none_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_rule(text)
    assert says in str(caught.value), str(caught.value)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader_of_rules(text: str) -> None:
    try:
        rule = parse_rule(text)
    except ValueError:
        return
    assert (rule.host == "") == (rule.network is not None)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192"),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001:0:5ef5:79fd::1", "2001:db8::1", "fe80::1%1"),
    ],
)
def test_special_addresses_are_reached_by_no_name_and_no_wildcard(address: str) -> None:
    for many in ("*:*", "*:80", "0.0.0.0/0:80", "[::/0]:80"):
        for name in ("", "rebound.example.com"):
            found = judge_addresses(rules(many), [ip_address(address)], 80, name=name)
            assert isinstance(found, Denial), (address, many)


@given(ADDRESSES)
def test_what_is_not_global_is_special(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert special(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1", "64:ff9b::101:101"])
def test_public_addresses_are_not_special(address: str) -> None:
    assert not special(ip_address(address))
    assert dial(address, 443, "*:443") == [address]
    assert isinstance(dial(address, 443, "example.com:443"), str)


def test_a_special_address_has_to_be_named_as_such() -> None:
    assert dial("10.1.2.3", 5432, "10.0.0.0/8:5432") == ["10.1.2.3"]
    assert dial("10.1.2.3", 5432, "10.1.2.3:5432") == ["10.1.2.3"]
    assert dial("10.1.2.3", 5433, "10.0.0.0/8:5432") == "10.1.2.3:5433"
    assert dial("::ffff:10.1.2.3", 5432, "10.0.0.0/8:5432") == ["10.1.2.3"]
    assert dial("::1", 80, "[::1]:80") == ["::1"]
    assert dial("fd00::1", 80, "[fd00::/8]:80") == ["fd00::1"]
    assert dial("10.1.2.3", 5432, "0.0.0.0/0:5432") == "10.1.2.3:5432"
    assert dial("10.1.2.3", 5432, "8.0.0.0/5:5432") == "10.1.2.3:5432"


def test_an_address_of_the_hosts_own_has_to_be_named_itself() -> None:
    own, other = ip_address("93.184.216.34"), ip_address("93.184.216.35")

    def judge(*texts: str, name: str = "", many: tuple[object, ...] = (own,)) -> object:
        found = judge_addresses(
            rules(*texts),
            many,  # type: ignore[arg-type]
            80,
            name=name,
            own={own, ip_address("10.0.0.1"), ip_address("127.0.0.1")}.__contains__,
        )
        return found.grant if isinstance(found, Denial) else [str(one) for one in found]

    for text in ("a.com:80", "*:80", "93.184.216.0/24:80", "0.0.0.0/0:*"):
        assert judge(text) == f"{own}:80", text
        assert judge("*:80", text, name="a.com") == f"{own}:80", text
        assert judge("*:80", text, name="a.com", many=(own, other)) == [str(other)], text
    assert judge(f"{own}:80") == judge(f"{own}/32:*") == [str(own)]
    assert judge(f"{own}:81") == f"{own}:80"
    assert judge("10.0.0.0/8:80", many=(ip_address("10.0.0.1"),)) == "10.0.0.1:80"
    assert judge("10.0.0.1:80", many=(ip_address("10.0.0.1"),)) == ["10.0.0.1"]
    assert judge("10.0.0.0/8:80", many=(ip_address("10.0.0.2"),)) == ["10.0.0.2"]
    assert judge("127.0.0.0/8:80", many=(ip_address("127.0.0.1"),)) == ["127.0.0.1"]
    for spelled in ("::ffff:93.184.216.34", "64:ff9b::5db8:d822"):
        assert isinstance(judge("*:80", name="a.com", many=(ip_address(spelled),)), str), spelled


def test_of_a_name_only_the_addresses_that_passed_are_dialled() -> None:
    both = [ip_address("10.0.0.5"), ip_address("93.184.216.34"), ip_address("::ffff:93.184.216.34")]
    assert judge_addresses(rules("a.com:443"), both, 443, name="a.com") == (ip_address("93.184.216.34"),)
    denial = judge_addresses(rules("a.com:443"), both[:1], 443, name="a.com")
    assert denial == Denial("a.com:443 leads to 10.0.0.5, and 10.0.0.5 is a private address", "10.0.0.5:443")
    assert judge_addresses(rules("a.com:443", "10.0.0.0/8:443"), both[:1], 443, name="a.com") == (both[0],)
    assert judge_addresses(rules("a.com:443"), [], 443, name="a.com") == Denial("a.com has no address")


@given(ADDRESSES, st.integers(1, 65535))
def test_the_line_that_is_proposed_allows_it(address: IPv4Address | IPv6Address, port: int) -> None:
    found = judge_addresses((), [address], port)
    assert isinstance(found, Denial)
    assert not isinstance(judge_addresses(rules(found.grant), [address], port), Denial)


@given(ADDRESSES)
def test_an_empty_list_allows_nothing(address: IPv4Address | IPv6Address) -> None:
    assert isinstance(judge_addresses((), [address], 443, name="a.com"), Denial)
    assert judge_name((), "a.com", 443) is not None
    assert read_grant({}) == Grant()


@pytest.mark.parametrize(
    "name", ["1", "1.2.3.4", "a.0x10", "0x7f000001", "a.1", "a..b", "", ".", "a b", "a\0"]
)
def test_what_a_resolver_may_take_for_an_address_is_no_name(name: str) -> None:
    assert not is_name(name)
