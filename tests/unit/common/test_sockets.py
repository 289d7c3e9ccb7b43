import pytest

from libs.common.process.sockets import each_host


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://u:p@a:5672/ostoja", ["amqp://u:p@a:5672/ostoja"]),
        (
            "amqps://u:p%2C%40@a:5671,b,[::1]:5/ostoja?cafile=/ca.pem",
            [f"amqps://u:p%2C%40@{at}/ostoja?cafile=/ca.pem" for at in ("a:5671", "b", "[::1]:5")],
        ),
    ],
)
def test_each_host_of_a_url_has_the_account_and_options(url: str, hosts: list[str]) -> None:
    assert each_host(url) == hosts
