"""Rules 7 to 15 of the data plane: what is in a step. Times are read off a lattice of 1 ms a step unless said otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from engine_kit import LATTICE, MS, PER_TOKEN, requests, spec
from play import Result, end, go, outcome, start

from sim.dataplane.engine import DataPlane, StreamRules
from sim.perf.steptime import closed_form

Engine = type[DataPlane]
US = 1_000

# Two requests of 8 + 20 tokens in 40 tokens of KV. The first is admitted at 0, the second at 1 ms. KV in use after each step:
# 17 (1 ms), 35, 37, 39 (4 ms); the step at 4 ms would need 41, so the second, with 3 tokens generated, is thrown out.
TIGHT = spec(seats=4, kv_tokens=40)
PAIR = ((0, 8, 20), (0, 8, 20))


def test_preemption_by_hand(engine: Engine) -> None:
    """Rules 7 and 8: thrown out at 4 ms, 11 tokens recomputed from 20 ms, the 4th token at 21 ms, the 20th at 37 ms."""
    done = outcome(engine, requests(*PAIR), specs=[TIGHT])
    assert done.left == [20, 37]
    assert done.first == [1, 2]
    assert done.column("preemptions") == [0, 1]
    assert done.column("attempts") == [1, 1]
    assert done.total("preempted") == 1
    assert done.total("prefill_tokens") == 8 + 8 + 11
    assert done.total("useful_prefill_tokens") == 8 + 11
    assert done.total("lost_prefill_tokens") == 8
    assert done.total("output_tokens") == 40
    assert done.total("lost_output_tokens") == 0
    assert done.view.steps.tolist() == [37]


def test_kv_in_use_by_hand(engine: Engine) -> None:
    """Rule 7: prompt + generated + 8 for each running request; a prompt is reserved whole when it is admitted."""
    plane = start(engine, requests(*PAIR), specs=[TIGHT])
    seen = []
    for t_ms in range(6):
        go(plane, t_ms * MS)
        seen.append(int(plane.view(t_ms * MS).kv_used_tokens[0]))
    # At 0 the first is in; at 1 ms the second too: 17 + 16; at 4 ms only the first is left: 8 + 4 + 8.
    assert seen == [16, 33, 35, 37, 20, 21]
    view = plane.view(5 * MS)
    assert (view.running.tolist(), view.waiting.tolist(), view.outstanding.tolist()) == ([1], [1], [2])


@pytest.mark.parametrize(("kv_tokens", "second_leaves_ms"), [(40, 20 + 17), (41, 20 + 16), (1_000, 21)])
def test_growth_may_fill_the_last_token(engine: Engine, kv_tokens: int, second_leaves_ms: int) -> None:
    """Rule 7: growth is refused only above capacity: with 41 tokens the step at 4 ms still runs and the victim has 4 tokens."""
    done = outcome(engine, requests(*PAIR), specs=[spec(seats=4, kv_tokens=kv_tokens)])
    assert done.left == [20, second_leaves_ms]
    assert done.column("preemptions") == [0, int(kv_tokens < 1_000)]
    plane = start(engine, requests(*PAIR), specs=[spec(seats=4, kv_tokens=kv_tokens)])
    go(plane, 4 * MS)
    assert plane.view(4 * MS).running.tolist() == [1 if kv_tokens == 40 else 2]


def test_the_victim_is_the_latest_admitted(engine: Engine) -> None:
    """Rule 8: with three requests the third goes, whatever its size."""
    plane = start(engine, requests((0, 8, 20), (0, 8, 20), (0, 1, 20)), specs=[spec(seats=4, kv_tokens=50)])
    # KV at 1 ms 17, then 17 + 16 + 9 = 42, at 2 ms 45, at 3 ms 48; three more do not fit: the third (admitted last) goes.
    go(plane, 3 * MS)
    assert plane.view(3 * MS).running.tolist() == [2]
    assert plane.view(3 * MS).kv_used_tokens.tolist() == [48 - (1 + 2 + 8)]


def test_a_partial_prefill_can_be_the_victim(engine: Engine) -> None:
    """Rule 8: budget 4, KV 38. The second's prefill of 14 goes in chunks of 3; after 9 of them growth no longer fits at 4 ms."""
    done = outcome(engine, requests((0, 4, 20), (0, 14, 2)), specs=[spec(seats=2, token_budget=4, kv_tokens=38)])
    assert done.total("lost_prefill_tokens") == 9
    assert done.total("prefill_tokens") == 4 + 9 + 14
    assert done.first == [1, 24]  # from 20 ms on, alone: 4 + 4 + 4 + 2
    assert done.left == [20, 25]
    assert done.column("preemptions") == [0, 1]


def test_the_older_of_two_victims_ends_ahead(engine: Engine) -> None:
    """Rule 8: ten prompts of one token finish together at 2 ms with 100 of 91 tokens in use; two are thrown out.

    Request 0 only lets the ten gather. Eight stay with 80 tokens; at 3 ms one of them is done and 77 are in use, so the victim at
    the head (10 tokens) comes back in below the watermark, and the other does not.
    """
    rows = [(0, 1, 1), (0, 1, 2), *[(0, 1, 9)] * 7, (0, 1, 2), (0, 1, 2)]
    done = outcome(engine, requests(*rows), specs=[spec(seats=10, token_budget=10, kv_tokens=91)])
    assert done.column("preemptions")[9:] == [1, 1]
    assert done.left[9] == 4
    assert done.left[10] > 4


def test_nothing_is_admitted_in_a_preempting_step(engine: Engine) -> None:
    """Rule 9: at 4 ms the victim (19 tokens) would fit beside the first (20) in 40 - 1; a newcomer of 1 + 8 tokens would too."""
    done = outcome(engine, requests(*PAIR, (3 * MS + 1, 1, 1)), specs=[TIGHT])
    assert done.left[1] == 37
    assert done.left[2] == 21  # behind the victim at the head, from 20 ms on
    plane = start(engine, requests(*PAIR), specs=[TIGHT])
    go(plane, 4 * MS)
    assert plane.view(4 * MS).running.tolist() == [1]


@pytest.mark.parametrize(("prompt", "leaves_ms"), [(63, 2), (64, 6)])
def test_the_watermark_stays_free_while_something_runs(engine: Engine, prompt: int, leaves_ms: int) -> None:
    """Rule 10: at 1 ms 19 tokens are in use; 63 + 8 more make exactly 100 - 10, one more must wait for the end at 5 ms."""
    done = outcome(engine, requests((0, 10, 5), (0, prompt, 1)), specs=[spec(kv_tokens=100, watermark_tokens=10)])
    assert done.left == [5, leaves_ms]


def test_the_watermark_does_not_bind_an_idle_replica(engine: Engine) -> None:
    """Rule 10 as DESIGN has it: alone, a request may use the last token."""
    done = outcome(engine, requests((0, 20, 2)), specs=[spec(kv_tokens=30, watermark_tokens=25)])
    assert done.left == [2]


def test_two_prompts_in_one_step_leave_the_watermark_too(engine: Engine) -> None:
    """Rule 10: the second of a step is admitted beside the first: 2 x 48 = 96 > 100 - 5, so it waits."""
    rows = [(0, 1, 1), (0, 40, 1), (0, 40, 1)]
    done = outcome(engine, requests(*rows), specs=[spec(kv_tokens=100, watermark_tokens=5)])
    assert done.left == [1, 2, 3]
    done = outcome(engine, requests(*rows), specs=[spec(kv_tokens=100, watermark_tokens=4)])
    assert done.left == [1, 2, 2]


def test_the_head_of_the_line_blocks(engine: Engine) -> None:
    """Rule 10: a small request does not pass a large one that waits for KV."""
    rows = requests((0, 10, 5), (0, 80, 1), (0, 1, 1))
    assert outcome(engine, rows, specs=[spec(kv_tokens=100)]).left == [5, 6, 6]
    assert outcome(engine, rows, specs=[spec(kv_tokens=1_000)]).left == [5, 2, 2]


def test_seats_bound_a_step(engine: Engine) -> None:
    """Rule 7: with two seats the third starts when one leaves."""
    done = outcome(engine, requests((0, 10, 3), (0, 10, 4), (0, 10, 1)), specs=[spec(seats=2)])
    assert done.left == [3, 5, 4]


CACHED: tuple[tuple[int, int, int], ...] = ((60, 0, 40), (99, 0, 1), (100, 0, 1), (5_000, 0, 1), (60, 7, 100), (0, 0, 100))


@pytest.mark.parametrize(("prefix_tokens", "prefix", "computed"), CACHED)
def test_cached_tokens_save_compute(engine: Engine, prefix_tokens: int, prefix: int, computed: int) -> None:
    """Rule 11: min(cached, prompt - 1) tokens are not computed; a prefix of a group is no certain hit."""
    rows = requests((0, 100, 1), prefix_tokens=[prefix_tokens], prefix=[prefix])
    done = outcome(engine, rows, step=PER_TOKEN)
    assert done.column("leave_ns") == [computed * US]
    assert done.total("prefill_tokens") == done.total("useful_prefill_tokens") == computed
    assert done.total("completed_prompt_tokens") == 100


def test_cached_tokens_save_no_kv(engine: Engine) -> None:
    """Rule 11: the whole prompt is in the cache."""
    plane = start(engine, requests((0, 100, 5), prefix_tokens=[60]), step=PER_TOKEN)
    go(plane, 1)
    assert plane.view(1).kv_used_tokens.tolist() == [108]
    assert plane.view(1).reserved_tokens.tolist() == [100]


def test_cached_tokens_are_not_honoured_on_recompute(engine: Engine) -> None:
    """Rule 11: the victim's second prefill computes prompt + generated = 11 tokens, though 7 of 8 were cached at first."""
    done = outcome(engine, requests(*PAIR, prefix_tokens=[0, 7]), specs=[TIGHT])
    assert done.column("preemptions") == [0, 1]
    assert done.total("prefill_tokens") == 8 + 1 + 11
    assert done.total("lost_prefill_tokens") == 1


def test_cached_tokens_are_not_honoured_on_retry(engine: Engine) -> None:
    """Rule 11: killed at 10 us, the new replica computes all 100 tokens."""
    plane = start(engine, requests((0, 100, 1), prefix_tokens=[60]), step=PER_TOKEN, replicas=(0, 0))
    go(plane, 10 * US)
    plane.kill_replica(10 * US, 0)
    assert end(plane).column("leave_ns") == [110 * US]


def test_cached_tokens_survive_a_redispatch_before_admission(engine: Engine) -> None:
    """Rule 11: a request that never ran keeps its hit."""
    rows = requests((0, 100, 1), (0, 100, 1), prefix_tokens=[0, 60])
    plane = start(engine, rows, step=PER_TOKEN, specs=[spec(seats=1)])
    go(plane, 10 * US)
    plane.kill_replica(10 * US, 0)
    plane.add_replica(10 * US, 0)
    assert end(plane).column("leave_ns") == [110 * US, 150 * US]


def test_attention_counts_what_is_cached(engine: Engine) -> None:
    """S = p (c + p/2): 6 tokens over 4 cached make 42; in chunks of 6 and 4 a prompt of 10 makes 18 and 32."""
    step = closed_form(fixed_ns=1_000.0, attention_ns=2.0)
    hit = outcome(engine, requests((0, 10, 1), prefix_tokens=[4]), step=step)
    assert hit.column("leave_ns") == [1_084]
    chunked = outcome(engine, requests((0, 10, 1)), step=step, specs=[spec(seats=6, token_budget=6)])
    assert chunked.column("leave_ns") == [1_036 + 1_064]


def test_sampled_sequences_are_those_that_emit(engine: Engine) -> None:
    """n_out counts decoding sequences and prompts completed in the step, not an unfinished chunk."""
    step = closed_form(fixed_ns=1_000.0, sequence_ns=10.0)
    done = outcome(engine, requests((0, 10, 2)), step=step, specs=[spec(seats=6, token_budget=6)])
    assert done.column("first_token_ns") == [1_000 + 1_010]
    assert done.column("leave_ns") == [1_000 + 1_010 + 1_010]


@pytest.mark.parametrize("limits", [{"kv_tokens": 38}, {"max_model_len": 30}])
def test_too_long_is_what_no_replica_could_ever_hold(engine: Engine, limits: dict[str, int]) -> None:
    """Rule 12 as DESIGN has it: prompt + output + 8 above all KV, or prompt + output above max_model_len; with nobody there too."""
    rows = requests((0, 10, 20), (0, 11, 20), (0, 1, 30))
    done = outcome(engine, rows, specs=[spec(watermark_tokens=5, **limits)])
    assert done.outcomes == ["completed", "too_long", "too_long"]
    assert done.left[1:] == [0, 0]
    assert done.column("replica")[1:] == [-1, -1]
    nobody = outcome(engine, rows, replicas=(), specs=[spec(**limits)])
    assert nobody.outcomes == ["unfinished", "too_long", "too_long"]


def test_too_long_looks_at_the_specs_a_stream_may_use(engine: Engine) -> None:
    """Rule 12: a spec that could hold it does not help a stream that it does not accept, even before it is added."""
    specs = [spec(kv_tokens=50), spec(kv_tokens=500, streams=frozenset({1}))]
    rows = requests((0, 90, 10), (0, 90, 10), stream=[0, 1])
    done = outcome(engine, rows, specs=specs, streams=[StreamRules(), StreamRules()])
    assert done.outcomes == ["too_long", "unfinished"]


def test_chunked_prefill(engine: Engine) -> None:
    """Rule 7: 250 tokens in chunks of 100, 100, 50, then a step of one token."""
    done = outcome(engine, requests((0, 250, 2)), step=PER_TOKEN, specs=[spec(token_budget=100)])
    assert done.column("first_token_ns") == [250 * US]
    assert done.column("leave_ns") == [251 * US]
    assert done.view.steps.tolist() == [4]


def test_the_rest_of_the_budget_goes_to_the_next_prompt(engine: Engine) -> None:
    """Rule 7: the third step takes the last 50 of the first and 50 of the second, the fourth a decode and the last 20."""
    done = outcome(engine, requests((0, 250, 2), (0, 70, 1)), step=PER_TOKEN, specs=[spec(token_budget=100)])
    assert done.column("first_token_ns") == [300 * US, 321 * US]
    assert done.column("leave_ns") == [321 * US, 321 * US]


def test_the_partial_prefill_goes_before_new_prompts(engine: Engine) -> None:
    """Rule 7: a later short prompt does not pass the one that is half done, and a partial prefill holds a seat."""
    rows = requests((0, 250, 1), (1, 10, 1))
    assert outcome(engine, rows, specs=[spec(token_budget=100)]).left == [3, 3]
    assert outcome(engine, rows, specs=[spec(seats=1, token_budget=100)]).left == [3, 4]


def test_decoding_takes_the_budget_first(engine: Engine) -> None:
    """Rule 7: budget 4; three sequences decode, so a prompt of 3 goes one token a step."""
    rows = requests(*[(0, 1, 9)] * 3, (MS, 3, 1))
    done = outcome(engine, rows, specs=[spec(seats=4, token_budget=4)])
    # The first decodes from 1 ms, all three from 2 ms on; the fourth is admitted at 2 ms.
    assert done.left == [9, 10, 10, 5]


def test_a_request_of_one_token_leaves_at_the_end_of_its_prefill(engine: Engine) -> None:
    """Semantics 3: its first token is its last; KV is free at once."""
    plane = start(engine, requests((0, 10, 1), (0, 10, 1)))
    go(plane, MS)
    assert plane.view(MS).kv_used_tokens.tolist() == [18]
    done = end(plane)
    assert done.left == done.first == [1, 2]
    assert done.view.kv_used_tokens.tolist() == done.view.reserved_tokens.tolist() == done.view.outstanding.tolist() == [0]


HIGH_LOW = (StreamRules(priority=0), StreamRules(priority=5))


def priorities(engine: Engine, *rows: tuple[int, int, int], stream: list[int], **changes: Any) -> Result:
    """Run with stream 1 above stream 0."""
    return outcome(engine, requests(*rows, stream=stream), streams=HIGH_LOW, **changes)


def test_higher_priorities_are_admitted_first(engine: Engine) -> None:
    """One seat: the high request of 2 us goes before the low ones of 1 us; inside a level the order is that of arrival."""
    done = priorities(engine, (0, 1, 3), (1, 1, 1), (2, 1, 1), (3, 1, 1), stream=[0, 0, 1, 1], specs=[spec(seats=1)])
    assert done.left == [3, 6, 4, 5]


def test_a_high_arrival_preempts_nobody(engine: Engine) -> None:
    """Priorities order the waiting, they do not interrupt the running."""
    done = priorities(engine, (0, 1, 5), (1, 1, 1), stream=[0, 1], specs=[spec(seats=1)])
    assert done.left == [5, 6]
    assert done.total("preempted") == 0


def test_a_blocked_high_head_blocks_the_low(engine: Engine) -> None:
    """Head of line across levels: the low request that would fit waits behind the high one that does not."""
    done = priorities(engine, (0, 10, 5), (0, 1, 1), (0, 80, 1), stream=[0, 0, 1], specs=[spec(kv_tokens=100)])
    assert done.left == [5, 6, 6]


def test_the_victim_is_the_lowest_priority(engine: Engine) -> None:
    """Rule 8 with priorities: the low one goes at 4 ms though admitted first; it has 4 tokens, the high one leaves at 21 ms."""
    done = priorities(engine, *PAIR, stream=[0, 1], specs=[TIGHT])
    assert done.column("preemptions") == [1, 0]
    assert done.left == [21 + 16, 21]


@pytest.mark.parametrize(("rules", "left"), [([StreamRules()] * 2, [46, 20, 37]), (HIGH_LOW, [29, 20, 46])])
def test_where_a_victim_goes_back(engine: Engine, rules: list[StreamRules], left: list[int]) -> None:
    """DESIGN 6.2: to the front with one priority, to its place by (priority, arrival) with several.

    Request 0 dies with its replica at 3.5 ms and waits on the other, where 1 and 2 decode; request 2 is thrown out at 4 ms.
    """
    specs = [spec(max_outstanding=1), spec(seats=4, kv_tokens=40)]
    plane = start(engine, requests((0, 20, 9), *PAIR), specs=specs, streams=rules, replicas=(0, 1))
    go(plane, 7 * MS // 2)
    plane.kill_replica(7 * MS // 2, 0)
    done = end(plane)
    assert done.column("preemptions") == [0, 0, 1]
    assert done.left == left


def test_the_lattice_is_what_it_says() -> None:
    """The oracles above rest on steps of exactly 1 ms whatever is in them."""
    assert LATTICE.step_fx(1, 0, 0, 0) == LATTICE.step_fx(999, 9, 10**6, 10**6, 9) == MS << 20
