"""Trace files: formats, exact times, line numbers, broken rows."""

import gzip
import hashlib
from pathlib import Path

import duckdb
import pytest

from sim.errors import InputError
from sim.workload.readers import read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951697,396,109\r\n"
PLAIN = "time,prompt_tokens,output_tokens,segment\n0.5,10,1,paid\n1.25,20,2,free\n1.25,30,3,paid\n"


@pytest.fixture
def written(tmp_path):
    def write(text, name="trace.csv"):
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def lists(rows):
    return {name: column.tolist() for name, column in rows.page(0, 100).items()}


def refused(path, file_format="auto", max_bad_rows=0):
    with pytest.raises(InputError) as caught:
        read_trace(path, file_format, max_bad_rows)
    return caught.value.problems


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_azure_times_are_exact_to_a_tenth_of_a_microsecond(written, name):
    path = written(AZURE, name)
    rows = read_trace(path, "auto", 0)
    assert lists(rows) == {"time_ns": [0, 4_314_579_700], "prompt": [374, 396], "output": [44, 109], "segment": [0, 0]}
    assert (rows.rows, rows.span_ns, rows.segments, rows.bad_rows) == (2, 4_314_579_700, ("all",), 0)
    assert rows.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_plain_rows_have_segments_and_keep_the_file_order_of_equal_times(written):
    rows = read_trace(written(PLAIN), "auto", 0)
    assert rows.segments == ("free", "paid")
    assert lists(rows) == {
        "time_ns": [0, 750_000_000, 750_000_000],
        "prompt": [10, 20, 30],
        "output": [1, 2, 3],
        "segment": [1, 0, 1],
    }


@pytest.mark.parametrize(
    "times",
    [
        ("1700000000.123456789", "1700000001.123456790"),
        ("2023-11-14T22:13:20.123456789", "2023-11-14T22:13:21.123456790"),
        ("2023-11-14 22:13:20.123456789Z", "2023-11-15 00:13:21.123456790+02:00"),
        ("1e-1", "1.100000001"),
    ],
)
def test_every_way_to_write_a_time_is_exact(written, times):
    rows = read_trace(written(f"time,prompt_tokens,output_tokens\n{times[0]},1,1\n{times[1]},1,1\n"), "plain", 0)
    assert rows.span_ns == 1_000_000_001


def test_rows_out_of_order_are_sorted(written):
    rows = read_trace(written("time_s,input_tokens,completion_tokens\n9,1,1\n3,2,1\n5,3,1\n"), "auto", 0)
    assert lists(rows)["prompt"] == [2, 3, 1]
    assert lists(rows)["time_ns"] == [0, 2_000_000_000, 6_000_000_000]


@pytest.mark.parametrize("time_type", ["DOUBLE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMPTZ", "VARCHAR", "INTEGER"])
def test_parquet_and_csv_give_the_same_rows(tmp_path, written, time_type):
    seconds = [0, 2, 2, 7] if time_type == "INTEGER" else [0.25, 2.5, 2.5, 7.125]
    value = "to_timestamp(t)" if time_type.startswith("TIMESTAMP") else "t"
    path = tmp_path / "trace.parquet"
    listed = ", ".join(f"({second}, {row + 1}, {row + 2}, 's{row % 2}')" for row, second in enumerate(seconds))
    duckdb.connect(":memory:").execute(
        f"COPY (SELECT CAST({value} AS {time_type}) AS time, p AS prompt_tokens, CAST(o AS DOUBLE) AS output_tokens, s AS segment"
        f" FROM (VALUES {listed}) AS v(t, p, o, s)) TO '{path}' (FORMAT parquet)"
    )
    text = "".join(f"{second},{row + 1},{row + 2},s{row % 2}\n" for row, second in enumerate(seconds))
    csv = read_trace(written("time,prompt_tokens,output_tokens,segment\n" + text), "plain", 0)
    parquet = read_trace(str(path), "auto", 0)
    assert lists(parquet) == lists(csv)
    assert parquet.segments == csv.segments


def test_broken_rows_are_named_by_line_column_and_value(written):
    text = (
        "\n"  # line 1
        "time,prompt_tokens,output_tokens,segment\n"
        "1.0,5,6,a\n"
        "\n"
        "2.0,x,6,b\n"  # 5
        "3,4\n"
        "5,,7,b\n"
        '6,"1",2,\n'
        "7,1.5,2,a\n"
        "x,1,2,a\n"  # 10
        "8,1,0,c\n"
        "9,-3,1,c\n"
        "-1,3,1,c\n"
        "10,3000000000,1,c\n"
        "infinity,3,1,c\n"  # 15
        "11,3,4,c"
    )
    path = written(text)
    first, *problems = refused(path, max_bad_rows=10)
    assert (first.path, first.value) == ("max_bad_rows", 10)
    assert "11 broken rows" in first.message
    assert [(problem.path.removeprefix(path), problem.value) for problem in problems] == [
        (", line 5, column prompt_tokens", "x"),
        (", line 6", ""),
        (", line 7, column prompt_tokens", None),
        (", line 8, column segment", None),
        (", line 9, column prompt_tokens", "1.5"),
        (", line 10, column time", "x"),
        (", line 11, column output_tokens", "0"),
        (", line 12, column prompt_tokens", "-3"),
        (", line 13, column time", "-1"),
        (", line 14, column prompt_tokens", "3000000000"),
        (", line 15, column time", "infinity"),
    ]
    rows = read_trace(path, "auto", 11)
    assert rows.bad_rows == 11
    assert lists(rows)["time_ns"] == [0, 10_000_000_000]
    assert rows.segments == ("a", "c")


def test_only_the_first_twenty_broken_rows_are_shown(written):
    problems = refused(written("time,prompt_tokens,output_tokens\n0,1,1\n" + "0,0,1\n" * 25))
    assert len(problems) == 21
    assert "25 broken rows, the first 20 follow" in problems[0].message
    assert problems[-1].path.endswith("line 22, column prompt_tokens")


def test_broken_rows_of_parquet_are_counted_from_one(tmp_path):
    path = tmp_path / "trace.parquet"
    duckdb.connect(":memory:").execute(
        "COPY (SELECT * FROM (VALUES (0.0, 1, 1), (1.0, NULL, 1), ('nan'::DOUBLE, 1, 1)) AS v(time, prompt_tokens, output_tokens))"
        f" TO '{path}' (FORMAT parquet)"
    )
    _, second, third = refused(str(path))
    assert second.path.endswith("row 2, column prompt_tokens")
    assert third.path.endswith("row 3, column time")


def test_line_numbers_are_right_deep_in_a_long_file(written):
    lines = [f"{second},1,1" for second in range(150_000)]
    lines[123_456] = "123456,zero,1"
    (_, problem) = refused(written("time,prompt_tokens,output_tokens\n" + "\n".join(lines), "long.csv.gz"))
    assert problem.path.endswith("line 123458, column prompt_tokens")


def test_a_missing_column_says_which_names_would_do(written):
    problems = refused(written("when,prompt_tokens,output\n1,2,3\n"))
    assert [problem.allowed for problem in problems] == ["time or time_s", "output_tokens or completion_tokens"]
    assert problems[0].value == "when,prompt_tokens,output"
    azure = refused(written(PLAIN), "azure")
    assert [problem.allowed for problem in azure] == ["timestamp", "contexttokens", "generatedtokens"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "trace.csv", "has no column"),
        ("time,prompt_tokens,output_tokens\n", "trace.csv", "no row"),
        (b"time,prompt_tokens,output_tokens\n1,\xff\xfe,3\n", "trace.csv", "cannot be read"),
        ("not parquet", "trace.parquet", "cannot be read"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(written, text, name, message):
    assert any(message in problem.message for problem in refused(written(text, name)))


def test_a_gzip_that_is_none_is_refused(tmp_path):
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(b"time,prompt_tokens,output_tokens\n1,2,3\n")
    assert "cannot be read" in refused(str(path))[0].message


def test_a_byte_order_mark_and_odd_file_names_do_no_harm(written):
    rows = read_trace(written(b"\xef\xbb\xbf" + PLAIN.encode(), "it's a 'trace'.csv"), "auto", 0)
    assert rows.rows == 3


def test_a_column_of_users_is_not_taken_for_segments(written):
    body = "".join(f"{row},1,1,user {row}\n" for row in range(80))
    (problem,) = refused(written("time,prompt_tokens,output_tokens,segment\n" + body))
    assert "too many" in problem.message


def test_pages_are_slices_of_the_sorted_rows(written):
    rows = read_trace(
        written("time,prompt_tokens,output_tokens\n" + "".join(f"{99 - row},{row + 1},1\n" for row in range(100))), "auto", 0
    )
    pages = [rows.page(first, 30)["prompt"].tolist() for first in range(0, 100, 30)]
    assert [len(page) for page in pages] == [30, 30, 30, 10]
    assert [prompt for page in pages for prompt in page] == list(range(100, 0, -1))
