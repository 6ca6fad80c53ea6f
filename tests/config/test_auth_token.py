"""The syntax of ``--auth-token``."""

from __future__ import annotations

import pytest

from etcdtw.config.auth_token import JWT, METHODS, SIMPLE, AuthToken, parse_auth_token
from etcdtw.config.flags import FlagError


def test_simple_tokens_take_any_option_and_make_nothing_of_it() -> None:
    assert parse_auth_token("simple") == parse_auth_token("simple,a=b,c=") == AuthToken(SIMPLE)


def test_all_of_jwt() -> None:
    text = "jwt,pub-key=a.pub,priv-key=a.key,sign-method=RS512,ttl=1m30s"
    assert parse_auth_token(text) == AuthToken(JWT, "RS512", "a.pub", "a.key", 90.0)


def test_a_jwt_lives_for_five_minutes_unless_told_otherwise() -> None:
    for text in ("jwt,sign-method=EdDSA,priv-key=k", "jwt,sign-method=EdDSA,priv-key=k,ttl="):
        assert parse_auth_token(text).ttl_s == 300
    assert parse_auth_token("jwt,sign-method=EdDSA,priv-key=k,ttl=0").ttl_s == 0


def test_every_method_is_known() -> None:
    assert len(METHODS) == 13
    for method in METHODS:
        assert parse_auth_token(f"jwt,sign-method={method}").sign_method == method


def test_options_that_mean_nothing_are_told() -> None:
    assert parse_auth_token("jwt,sign-method=HS256,x=1,y=2").unknown == ("x", "y")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no kind of tokens"),
        ("JWT,sign-method=HS256", "'JWT' is no kind of tokens"),
        ("simple,a", "each option is name=value, which 'a' is not"),
        ("simple,", "each option is name=value, which '' is not"),
        ("jwt,a=b=c", "each option is name=value, which 'a=b=c' is not"),
        ("jwt,ttl=1s,ttl=1s", "ttl is given twice"),
        ("jwt,sign-method=HS256,ttl=10", "ttl is a duration as 10m, which '10' is not"),
        ("jwt", "sign-method is '', and must be one of RS256"),
        ("jwt,sign-method=none", "sign-method is 'none', and must be one of RS256"),
        ("jwt,sign-method=hs256", "sign-method is 'hs256', and must be one of RS256"),
    ],
)
def test_a_value_that_etcd_refuses_is_refused(text: str, why: str) -> None:
    with pytest.raises(FlagError) as error:
        parse_auth_token(text)
    assert str(error.value).startswith(f"--auth-token: {why}")
    assert str(error.value).endswith("(auth: invalid auth options)")
