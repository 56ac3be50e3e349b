"""Errors: problems are collected, shown whole, and name the nearest valid word."""

from __future__ import annotations

import pytest

from sim.errors import BillcastError, InputError, Problem, Problems, RunError, nearest_name


def test_a_problem_says_path_value_allowed_and_nearest():
    problem = Problem("services.chat.router", "randm", "is not a router", "random, least_kv", "random")
    assert str(problem) == "services.chat.router = 'randm': is not a router; allowed: random, least_kv; did you mean 'random'?"


def test_a_problem_without_more_to_say_ends_there():
    assert str(Problem("seed", -1, "must not be negative")) == "seed = -1: must not be negative"


def test_all_problems_are_raised_at_once_in_order():
    problems = Problems()
    problems.raise_if_any()
    assert not problems.check(False, "a", 1, "first")
    assert problems.check(True, "b", 2, "never")
    problems.add("c", "lama", "second", choices=["llama", "mistral"])
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    assert [problem.path for problem in caught.value.problems] == ["a", "c"]
    assert caught.value.problems[1].nearest == "llama"
    assert caught.value.problems[1].allowed == "llama, mistral"
    assert str(caught.value).count("\n") == 1


def test_given_allowed_text_wins_over_the_list_of_choices():
    problems = Problems()
    problems.add("zone", "Berln", "unknown", "an IANA name", choices=["Berlin"])
    assert (problems.found[0].allowed, problems.found[0].nearest) == ("an IANA name", "Berlin")


def test_nothing_is_near_a_word_from_elsewhere():
    assert nearest_name("xyzzy", ["random", "least_kv"]) == ""


def test_bad_input_and_failed_runs_are_both_shown_without_traceback():
    assert issubclass(InputError, BillcastError)
    assert issubclass(RunError, BillcastError)
