"""Numbers that add up to a whole: exact terms rounded to integers with a given sum."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

from sim.units import NANO_PER_USD, divide_half_even

NANO_PER_CENT = NANO_PER_USD // 100


def apportion(total: int, terms: Sequence[Fraction | int]) -> list[int]:
    """Round terms to integers that add up to `total`: all down, then one more each for the largest remainders.

    This is Hamilton's method in exact arithmetic, for terms of either sign; ties go to the first. Where the terms add up to `total`
    no term moves by one or more.

    Parameters
    ----------
    total : what they shall add up to; 0 where there are no terms.

    Raises
    ------
    ValueError : a total, and no terms to bear it.

    Examples
    --------
    >>> apportion(10, [Fraction(10, 3)] * 3), apportion(0, [Fraction(-1, 2), Fraction(1, 2)])
    ([4, 3, 3], [0, 0])
    """
    if not terms:
        if total:
            raise ValueError(f"nothing to bear {total}")
        return []
    down = [floor(term) for term in terms]
    # Above 0 but for a total that lies below the sum of the terms, from which all of them then give.
    each, left = divmod(total - sum(down), len(terms))
    order = sorted(range(len(terms)), key=lambda number: (down[number] - terms[number], number))
    found = [value + each for value in down]
    for number in order[:left]:
        found[number] += 1
    return found


def parts_of(amount: int, weights: Sequence[Fraction | int]) -> list[int]:
    """Split an amount of either sign in proportion to weights, into integers that add up to it; equally where all weights are 0.

    Parameters
    ----------
    weights : at least one, not negative.

    Examples
    --------
    >>> parts_of(-10, [1, 2]), parts_of(3, [0, 0])
    ([-3, -7], [2, 1])
    """
    total = sum(weights)
    if not total:
        return parts_of(amount, [1] * len(weights))
    return apportion(amount, [Fraction(amount) * weight / total for weight in weights])


def cents(amount_nano: int) -> int:
    """Return nano-dollars as cents, half to even."""
    return divide_half_even(amount_nano, NANO_PER_CENT)


def exact_usd(amount_nano: int) -> str:
    """Return nano-dollars as dollars with all nine decimal places.

    Examples
    --------
    >>> exact_usd(-1_500_000_000), exact_usd(7)
    ('-1.500000000', '0.000000007')
    """
    dollars, rest = divmod(abs(amount_nano), NANO_PER_USD)
    return f"{'-' if amount_nano < 0 else ''}{dollars}.{rest:09}"


def as_cents(total_cents: int, amounts_nano: Sequence[int]) -> list[int]:
    """Round amounts to cents that add up to what is shown as their total.

    Examples
    --------
    >>> as_cents(1, [4_000_000, 4_000_000, 2_000_000])
    [1, 0, 0]
    """
    return apportion(total_cents, [Fraction(amount, NANO_PER_CENT) for amount in amounts_nano])


def table_in_cents(rows_cents: Sequence[int], columns_cents: Sequence[int], cells_nano: Sequence[Sequence[int]]) -> list[list[int]]:
    """Round the cells of a table to cents that add up to the given totals of its rows and of its columns.

    Every cell is rounded down first; then the cents that are missing go to the largest remainders whose row and column both
    still lack one, and what cannot be placed so goes to the largest amounts. So a cell may be shown a cent or two away from its own
    nearest cent, and the totals are those of the rows and of the columns alone.

    Parameters
    ----------
    rows_cents, columns_cents : totals, of equal sums. cells_nano : exact amounts, (rows, columns).

    Raises
    ------
    ValueError : the totals of the rows and of the columns do not add up to the same.

    Examples
    --------
    >>> table_in_cents([1, 1], [1, 1], [[6_000_000, 4_000_000], [4_000_000, 6_000_000]])
    [[1, 0], [0, 1]]
    """
    if sum(rows_cents) != sum(columns_cents):
        raise ValueError(f"rows of {sum(rows_cents)} cents and columns of {sum(columns_cents)}")
    found = [[amount // NANO_PER_CENT for amount in row] for row in cells_nano]
    rows = [total - sum(row) for total, row in zip(rows_cents, found, strict=True)]
    columns = [total - sum(row[at] for row in found) for at, total in enumerate(columns_cents)]
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    # A cell without a remainder keeps its value while there are others; then the largest amounts give and take.
    remainder = {place: cells_nano[place[0]][place[1]] % NANO_PER_CENT for place in places}
    for row, column in sorted((place for place in places if remainder[place]), key=lambda place: (-remainder[place], place)):
        if rows[row] > 0 and columns[column] > 0:
            found[row][column] += 1
            rows[row] -= 1
            columns[column] -= 1
    for sign in (1, -1):
        for row, column in sorted(places, key=lambda place: (-abs(cells_nano[place[0]][place[1]]), place)):
            step = max(min(sign * rows[row], sign * columns[column]), 0) * sign
            found[row][column] += step
            rows[row] -= step
            columns[column] -= step
    # Rows that have too much beside rows that lack as much: moved within the column of the largest amount.
    if any(rows):
        best = max(range(len(columns)), key=lambda column: sum(abs(row[column]) for row in cells_nano))
        for number, missing in enumerate(rows):
            found[number][best] += missing
    if any(columns):
        best = max(range(len(rows)), key=lambda row: sum(abs(amount) for amount in cells_nano[row]))
        for number, missing in enumerate(columns):
            found[best][number] += missing
    return found
