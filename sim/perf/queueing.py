"""Closed forms of queueing theory: what an engine with degenerate settings must reproduce, and quick answers for sizing.

Kendall's notation A/S/c/K/N: arrivals, service, servers, places (waiting and in service), population; `+D` adds a deadline for
the start of service. M/M/1 is `m_m_c` with one server and M/D/1 is `m_g_1` with `scv` 0. Arrivals are Poisson unless stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, expm1, inf

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binom, poisson

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Queue:
    """Stationary means of a queue.

    Parameters
    ----------
    wait_s, response_s : of a customer that is served: until its service starts, and until it ends.
    queued, in_system : mean numbers waiting and present. utilisation : busy share of a server, 0 to 1.
    refused : probability that an arrival is turned away or gives up.
    """

    wait_s: float
    response_s: float
    queued: float
    in_system: float
    utilisation: float
    refused: float = 0.0


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} = {value}: must be positive and finite")


def _stable(load: float) -> None:
    if load >= 1:
        raise ValueError(f"load = {load:g} per server: must be below 1, or the queue grows without limit")


def erlang_b(servers: int, offered: float) -> float:
    """Return the share of arrivals lost by `servers` servers without waiting places (M/G/c/c, any service distribution).

    Parameters
    ----------
    servers : at least 0. offered : arrival rate times mean service, in erlangs.

    Source: Erlang 1917; stable recursion B(c) = a B(c-1) / (c + a B(c-1)), Cooper 1981, chapter 3.

    Examples
    --------
    >>> round(erlang_b(5, 3.0), 6)
    0.110054
    """
    lost = 1.0
    for server in range(1, servers + 1):
        lost = offered * lost / (server + offered * lost)
    return lost


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that an arrival has to wait in M/M/c.

    Parameters
    ----------
    servers : at least 1. offered : arrival rate times mean service, in erlangs, below `servers`.

    Raises
    ------
    ValueError : offered load not below the number of servers.

    Source: Erlang 1917; C = B / (1 - rho (1 - B)).

    Examples
    --------
    >>> round(erlang_c(2, 1.0), 6), round(erlang_c(1, 0.7), 6)
    (0.333333, 0.7)
    """
    load = offered / servers
    _stable(load)
    lost = erlang_b(servers, offered)
    return lost / (1 - load * (1 - lost))


def m_m_c(arrival_per_s: float, service_s: float, servers: int = 1) -> Queue:
    """Return the means of M/M/c, first come first served.

    Parameters
    ----------
    arrival_per_s : arrival rate. service_s : mean service. servers : at least 1.

    Raises
    ------
    ValueError : a rate or time not positive, or an unstable queue.

    Source: W = C s / (c - a); Kleinrock 1975, section 3.5.

    Examples
    --------
    >>> queue = m_m_c(arrival_per_s=0.5, service_s=1.0)
    >>> queue.wait_s, queue.in_system
    (1.0, 1.0)
    >>> round(m_m_c(1.0, 1.0, servers=2).wait_s, 6)
    0.333333
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s)
    offered = arrival_per_s * service_s
    wait_s = erlang_c(servers, offered) * service_s / (servers - offered)
    return _by_little(arrival_per_s, wait_s, service_s, servers)


def _by_little(served_per_s: float, wait_s: float, service_s: float, servers: int, refused: float = 0.0) -> Queue:
    in_service = served_per_s * service_s
    queued = served_per_s * wait_s
    return Queue(wait_s, wait_s + service_s, queued, queued + in_service, in_service / servers, refused)


def m_m_c_wait_tail(t_s: float, arrival_per_s: float, service_s: float, servers: int = 1) -> float:
    """Return the probability of waiting longer than `t_s` in M/M/c, first come first served.

    Parameters
    ----------
    t_s : at least 0. arrival_per_s : arrival rate. service_s : mean service. servers : at least 1.

    Raises
    ------
    ValueError : an unstable queue.

    Source: P(W > t) = C exp(-(c - a) t / s); Kleinrock 1975, section 3.5.

    Examples
    --------
    >>> round(m_m_c_wait_tail(2.0, arrival_per_s=0.5, service_s=1.0), 6)
    0.18394
    """
    offered = arrival_per_s * service_s
    return erlang_c(servers, offered) * exp(-(servers - offered) * t_s / service_s)


def _birth_death(births: FloatArray, deaths: FloatArray) -> FloatArray:
    """Return the stationary probabilities of states 0..n from birth rates out of 0..n-1 and death rates out of 1..n."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(births) - np.log(deaths))])
    weights = np.exp(logs - logs.max())
    probabilities: FloatArray = weights / weights.sum()
    return probabilities


def m_m_c_k(arrival_per_s: float, service_s: float, servers: int, places: int) -> Queue:
    """Return the means of M/M/c/K; waits are those of accepted customers.

    Parameters
    ----------
    arrival_per_s : arrival rate, the refused included. service_s : mean service.
    servers : at least 1. places : K, waiting and in service, at least `servers`.

    Raises
    ------
    ValueError : a rate or time not positive, or fewer places than servers.

    Source: birth-death process, Kleinrock 1975, sections 3.6 and 3.7; an arrival sees the stationary state (PASTA, Wolff 1982).

    Examples
    --------
    >>> queue = m_m_c_k(arrival_per_s=1.0, service_s=1.0, servers=1, places=2)
    >>> round(queue.refused, 6), round(queue.wait_s, 6)
    (0.333333, 0.5)
    >>> round(m_m_c_k(3.0, 1.0, servers=5, places=5).refused, 6) == round(erlang_b(5, 3.0), 6)
    True
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s)
    if places < servers:
        raise ValueError(f"places = {places}: must be at least servers = {servers}")
    states = np.arange(places + 1)
    share = _birth_death(np.full(places, arrival_per_s), np.minimum(states[1:], servers) / service_s)
    refused = float(share[-1])
    queued = float(share @ np.maximum(states - servers, 0))
    served_per_s = arrival_per_s * (1 - refused)
    return _by_little(served_per_s, queued / served_per_s, service_s, servers, refused)


def finite_population(clients: int, think_s: float, service_s: float, servers: int = 1) -> Queue:
    """Return the means of M/M/c//N: closed-loop clients who think, send, wait for the answer and think again.

    Parameters
    ----------
    clients : N, at least 1. think_s : mean thinking time, exponential. service_s : mean service. servers : at least 1.

    Raises
    ------
    ValueError : a time not positive.

    Source: machine repair, Palm 1947; Kleinrock 1975, section 3.8. The throughput is utilisation x servers / service_s.

    Examples
    --------
    >>> queue = finite_population(clients=2, think_s=1.0, service_s=1.0)
    >>> round(queue.utilisation, 6), round(queue.in_system, 6)
    (0.8, 1.2)
    """
    _positive(clients=clients, think_s=think_s, service_s=service_s)
    states = np.arange(clients + 1)
    share = _birth_death((clients - states[:-1]) / think_s, np.minimum(states[1:], servers) / service_s)
    in_service = float(share @ np.minimum(states, servers))
    queued = float(share @ np.maximum(states - servers, 0))
    return _by_little(in_service / service_s, queued * service_s / in_service, service_s, servers)


def m_g_1(arrival_per_s: float, service_s: float, scv: float) -> Queue:
    """Return the means of M/G/1 with any order of service that looks at no sizes.

    Parameters
    ----------
    arrival_per_s : arrival rate. service_s : mean service.
    scv : squared coefficient of variation of the service, 0 deterministic, 1 exponential.

    Raises
    ------
    ValueError : a rate or time not positive, or an unstable queue.

    Source: Pollaczek 1930, Khinchine 1932: W = rho s (1 + scv) / (2 (1 - rho)).

    Examples
    --------
    >>> m_g_1(0.5, 1.0, scv=0.0).wait_s, m_g_1(0.5, 1.0, scv=1.0) == m_m_c(0.5, 1.0)
    (0.5, True)
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s)
    load = arrival_per_s * service_s
    _stable(load)
    return _by_little(arrival_per_s, load * service_s * (1 + scv) / (2 * (1 - load)), service_s, 1)


def m_g_1_priority_waits(arrival_per_s: Sequence[float], service_s: Sequence[float], scv: Sequence[float]) -> list[float]:
    """Return the mean wait of each class in a non-preemptive priority M/G/1, in seconds.

    Parameters
    ----------
    arrival_per_s, service_s, scv : by class, the highest priority first; as in `m_g_1`.

    Raises
    ------
    ValueError : an unstable queue.

    Source: Cobham 1954: W_k = R / ((1 - sigma_(k-1)) (1 - sigma_k)), R = sum of rate x second moment / 2, sigma_k = load of 1..k.

    Examples
    --------
    >>> [round(wait, 6) for wait in m_g_1_priority_waits([0.25, 0.25], [1.0, 1.0], [1.0, 1.0])]
    [0.666667, 1.333333]
    """
    classes = list(zip(arrival_per_s, service_s, scv, strict=True))
    residual_s = sum(rate * mean**2 * (1 + squared) / 2 for rate, mean, squared in classes)
    loads = np.concatenate([[0.0], np.cumsum([rate * mean for rate, mean, _ in classes])])
    _stable(float(loads[-1]))
    return [float(residual_s / ((1 - before) * (1 - after))) for before, after in pairwise(loads)]


def erlang_m_1(arrival_per_s: float, service_s: float, phases: int) -> Queue:
    """Return the means of E_k/M/1: what each of k replicas sees when Poisson arrivals are dealt out in turn.

    Parameters
    ----------
    arrival_per_s : arrival rate of this queue. service_s : mean service. phases : k, at least 1; 1 is M/M/1.

    Raises
    ------
    ValueError : a rate or time not positive, or an unstable queue.

    Source: GI/M/1, Kleinrock 1975, section 6.4: W = s r / (1 - r), r the root in (0, 1) of r = A*((1 - r) / s).

    Examples
    --------
    >>> round(erlang_m_1(0.5, 1.0, phases=1).wait_s, 6), round(erlang_m_1(0.5, 1.0, phases=2).wait_s, 6)
    (1.0, 0.618034)
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s)
    _stable(arrival_per_s * service_s)
    rate = phases * arrival_per_s * service_s
    root = brentq(lambda r: (rate / (rate + 1 - r)) ** phases - r, 0.0, 1 - 1e-9, xtol=1e-14)
    return _by_little(arrival_per_s, service_s * root / (1 - root), service_s, 1)


def m_m_1_deadline(arrival_per_s: float, service_s: float, deadline_s: float) -> Queue:
    """Return the means of M/M/1+D: a customer gives up when its service has not started `deadline_s` after its arrival.

    Parameters
    ----------
    arrival_per_s : arrival rate, above the service rate too. service_s : mean service. deadline_s : D.

    Raises
    ------
    ValueError : a rate or time not positive.

    Source: Barrer 1957; Baccelli and Hebuterne 1981. The work v ahead of an arrival has density rate P0 exp(-(1/s - rate) v) up
    to D, and rate P0 exp(rate D - v/s) above, where nobody joins. `queued` counts a customer no longer than its deadline.

    Examples
    --------
    >>> queue = m_m_1_deadline(arrival_per_s=1.0, service_s=1.0, deadline_s=1.0)
    >>> round(queue.refused, 6), round(queue.wait_s, 6), round(queue.utilisation, 6)
    (0.333333, 0.25, 0.666667)
    >>> round(m_m_1_deadline(0.5, 1.0, deadline_s=100.0).wait_s, 6)
    1.0
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s, deadline_s=deadline_s)
    decay = 1 / service_s - arrival_per_s
    if abs(decay) * deadline_s < 1e-6:
        mass, moment = deadline_s, deadline_s**2 / 2
    else:
        mass = -expm1(-decay * deadline_s) / decay
        moment = (mass - deadline_s * exp(-decay * deadline_s)) / decay
    beyond = service_s * exp(-decay * deadline_s)
    empty = 1 / (1 + arrival_per_s * (mass + beyond))
    refused = arrival_per_s * empty * beyond
    wait_s = arrival_per_s * empty * moment / (1 - refused)
    utilisation = arrival_per_s * (1 - refused) * service_s
    queued = arrival_per_s * ((1 - refused) * wait_s + refused * deadline_s)
    return Queue(wait_s, wait_s + service_s, queued, queued + utilisation, utilisation, refused)


def m_g_inf(arrival_per_s: float, service_s: float) -> Queue:
    """Return the means of M/G/infinity; the number present is Poisson distributed with mean `in_system`.

    Parameters
    ----------
    arrival_per_s : arrival rate. service_s : mean service, any distribution.

    Raises
    ------
    ValueError : a rate or time not positive.

    Source: Takacs 1962, chapter 3. A server of infinitely many has utilisation 0.

    Examples
    --------
    >>> m_g_inf(arrival_per_s=2.0, service_s=3.0).in_system
    6.0
    """
    _positive(arrival_per_s=arrival_per_s, service_s=service_s)
    return Queue(0.0, service_s, 0.0, arrival_per_s * service_s, 0.0)


def m_g_1_ps_response_s(size_s: float, arrival_per_s: float, service_s: float) -> float:
    """Return the mean response time of a customer of a given size in M/G/1 under processor sharing, any size distribution.

    Parameters
    ----------
    size_s : service the customer needs when alone. arrival_per_s : arrival rate. service_s : mean size.

    Raises
    ------
    ValueError : an unstable queue.

    Source: Kleinrock 1967; Sakata, Noguchi and Oizumi 1971: size / (1 - rho).

    Examples
    --------
    >>> m_g_1_ps_response_s(3.0, arrival_per_s=0.5, service_s=1.0)
    6.0
    """
    load = arrival_per_s * service_s
    _stable(load)
    return size_s / (1 - load)


def decode_batch(
    arrival_per_s: float, mean_tokens: float, fixed_s: float, sequence_s: float, seats: int = 1 << 30, states: int = 512
) -> Queue:
    """Return the means of a decode batch: a step of n <= seats sequences takes fixed_s + n sequence_s and gives each one token.

    Arrivals wait for the next step with a free seat (none when it is empty), token numbers are geometric. At the step ends the
    number present is a Markov chain: each of those seated stays with probability 1 - 1/mean_tokens, Poisson(arrival_per_s x step)
    join. Renewal-reward over the steps gives the means in time. `wait_s` ends when the first step begins.

    Parameters
    ----------
    arrival_per_s : arrival rate. mean_tokens : mean number of tokens, at least 1.
    fixed_s, sequence_s : step time, and step time per sequence. seats : most sequences in a step.
    states : where the chain is cut off.

    Raises
    ------
    ValueError : an unstable batch, or a chain cut off where it still has weight.

    Source: stationary vector of the chain just described. With fixed_s = 0 and all seats it is a branching process whose second
    moment has a closed form (second example), and with many tokens it tends to M/M/1 processor sharing, rho / (1 - rho) present
    (Kleinrock 1967; first example).

    Examples
    --------
    >>> round(decode_batch(0.5, mean_tokens=1e4, fixed_s=0.0, sequence_s=1e-4).in_system, 3)
    1.0
    >>> stop, join = 1 / 20, 0.03
    >>> stay, spread = 1 - stop + join, stop * (1 - stop) + join
    >>> second = (spread / (1 - stay) + 1) / (1 - stay**2)
    >>> closed = second * (1 + join / 2) / (1 / (1 - stay) + 1 / join)
    >>> abs(decode_batch(join, mean_tokens=20, fixed_s=0.0, sequence_s=1.0).in_system / closed - 1) < 1e-9
    True
    """
    _positive(arrival_per_s=arrival_per_s, mean_tokens=mean_tokens)
    full = min(seats, states)
    _stable(arrival_per_s * mean_tokens * (fixed_s + full * sequence_s) / full)
    present = np.arange(states)
    seated = np.minimum(present, seats)
    step_s = fixed_s + sequence_s * seated
    moves = np.zeros((states, states))
    moves[0, 1] = 1.0
    for n in range(1, states):
        staying = binom.pmf(np.arange(seated[n] + 1), seated[n], 1 - 1 / mean_tokens)
        joining = poisson.pmf(present, arrival_per_s * step_s[n])
        unseated = n - seated[n]
        moves[n, unseated:] = np.convolve(staying, joining)[: states - unseated]
    share = np.linalg.solve(np.vstack([(moves.T - np.eye(states))[1:], np.ones(states)]), np.eye(states)[-1])
    if share[-1] > 1e-12:
        raise ValueError(f"states = {states}: the chain is cut off where it has weight {share[-1]:.2g}")
    spent_s = share * np.where(present == 0, 1 / arrival_per_s, step_s)
    busy_s = np.where(present == 0, 0.0, spent_s)
    in_system = float(busy_s @ (present + arrival_per_s * step_s / 2) / spent_s.sum())
    queued = in_system - float(busy_s @ seated / spent_s.sum())
    utilisation = float(busy_s.sum() / spent_s.sum())
    return Queue(queued / arrival_per_s, in_system / arrival_per_s, queued, in_system, utilisation)
