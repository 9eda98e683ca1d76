"""The compilers that may compile the native hook, the best one first."""

import shutil

import pytest

from fnm_bus.setup import compile_hook


def install(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name in programs or None)


def test_each_installed_compiler_is_asked_for_a_static_binary_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "clang", "musl-gcc", "zsh")
    assert compile_hook.commands() == [
        ["musl-gcc", "-static"],
        ["musl-gcc"],
        ["clang", "-static"],
        ["clang"],
    ]


def test_a_machine_without_a_compiler_has_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    assert compile_hook.commands() == []


def test_the_environment_names_the_only_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "cc")
    monkeypatch.setenv("CC", "ccache 'my cc'")
    static = ["ccache", "my cc", "-static"]
    assert compile_hook.commands() == [static, static[:-1]]
