"""The registry: a class registered by name becomes a dataclass and its own configuration."""

from __future__ import annotations

from dataclasses import fields

import pytest

from sim.registry import choice_name, groups, names, register, registered

GROUP = "registry_test"


def test_registering_makes_a_dataclass_with_its_name():
    @register(GROUP, "night_owl")
    class NightOwl:
        day: int = 8
        night: int = 1

    assert registered(GROUP, "night_owl") is NightOwl
    assert [field.name for field in fields(NightOwl)] == ["day", "night"]
    assert choice_name(NightOwl(night=2)) == "night_owl"
    assert GROUP in groups()
    assert "night_owl" in names(GROUP)


def test_a_name_belongs_to_one_class():
    @register(GROUP, "taken")
    class First:
        value: int = 1

    with pytest.raises(ValueError, match=r"registered already, by .*First"):

        @register(GROUP, "taken")
        class Second:
            value: int = 2


def test_loading_a_module_again_replaces_its_class():
    def define() -> type:
        @register(GROUP, "reloaded")
        class Reloaded:
            value: int = 1

        return Reloaded

    define()
    latest = define()
    assert registered(GROUP, "reloaded") is latest


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest():
    register(GROUP, "zebra")(type("Zebra", (), {"__annotations__": {}}))
    with pytest.raises(KeyError, match=r"no registry_test named 'zebar'; there are: .*did you mean 'zebra'"):
        registered(GROUP, "zebar")


def test_only_registered_classes_have_a_choice_name():
    with pytest.raises(TypeError, match="not an instance of a registered class"):
        choice_name(object())
