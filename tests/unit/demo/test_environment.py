"""A demo's child processes get nothing of the caller's configuration."""

from fnm_bus.demo.environment import child_environment


def test_the_caller_s_settings_are_removed() -> None:
    caller = {
        "PATH": "/bin",
        "FNM_BUS_CONFIG": "/etc/fnm-bus/fnm-bus.toml",
        "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
        "FNM_BUS_LOCK_FD": "3",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "RUNTIME_DIRECTORY": "/run/fnm-bus-exabgp",
    }
    assert child_environment({}, caller) == {"PATH": "/bin"}


def test_settings_of_the_demo_win() -> None:
    caller = {"FNM_BUS_DRY_RUN": "true", "HOME": "/root"}
    variables = {"FNM_BUS_DRY_RUN": "false", "NOTIFY_SOCKET": "/tmp/demo"}  # noqa: S108 - never opened
    assert child_environment(variables, caller) == {"HOME": "/root", **variables}
