import pytest

from libs.common.database.redis_server import RedisServer


def test_the_url_of_sentinels_names_them_and_the_account_of_redis() -> None:
    server = RedisServer("redis+sentinel://:p%40@a:1,b,[::1]:3/2?master=main")
    assert server.sentinels == [("a", 1), ("b", 26379), ("::1", 3)]
    assert server.master == "main"
    assert server.options["password"] == "p@"
    assert server.options["db"] == 2
    assert server.sentinel_options == {"ssl": False}


def test_sentinels_get_the_account_only_if_the_url_says_so_and_tls_with_redis() -> None:
    url = "rediss+sentinel://u:p@a/0?master=main&sentinel_auth=yes&ssl_ca_certs=/ca.pem"
    assert RedisServer(url).sentinel_options == {
        "ssl": True,
        "ssl_ca_certs": "/ca.pem",
        "username": "u",
        "password": "p",
    }


def test_another_url_has_no_sentinels() -> None:
    server = RedisServer("redis://:p@a:6379/0")
    assert server.sentinels == []
    assert server.options == {"password": "p", "host": "a", "port": 6379, "db": 0}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:p@a:26379/0", "must name the master"),
        ("redis://:p@a:6379,b:6379/0", "only a redis"),
        ("http://a", "must specify"),
    ],
)
def test_a_wrong_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RedisServer(url)
