"""Conditions on columns: what they mean in SQLite, and that nothing else gets into it."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusemix_core.errors import ConfigError
from fusemix_core.search.where import NUMBER, TEXT, Column, parse

COLUMNS = {
    "year": Column("c0", NUMBER),
    "kind": Column("c1", TEXT),
    "a column": Column("c2", TEXT),
    'q"x': Column("c3", NUMBER),
}
ROWS = [
    (2019.0, "map", "x", 1.0),
    (2020.0, "chart", "It's", 2.0),
    (2021.5, "Map", None, 3.0),
    (None, None, "100%", -4.0),
    (2023.0, "photo", "", None),
]


@pytest.fixture(scope="module")
def table():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (c0 REAL, c1 TEXT, c2 TEXT, c3 REAL)")
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", ROWS)
    return connection


def passing(table, text):
    condition = parse(text, COLUMNS)
    query = f"SELECT rowid - 1 FROM items WHERE {condition.sql} ORDER BY rowid"  # noqa: S608
    return [row[0] for row in table.execute(query, condition.parameters)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year > 2020", [2, 4]),
        ("year >= 2020 and year < 2.0225e3", [1, 2]),
        ("year = 2020 or kind = 'map'", [0, 1]),
        ("year == 2020", [1]),
        ("year <> 2020", [0, 2, 4]),
        ("kind != 'map'", [1, 2, 4]),
        ("kind in ('map', 'photo')", [0, 4]),
        ("kind not in ('map', 'photo')", [1, 2]),
        ("year IN (2019, 2023)", [0, 4]),
        ("kind LIKE 'm%'", [0, 2]),
        ("kind not like '%a%'", [4]),
        ("year between 2020 and 2022", [1, 2]),
        ("year not between 2020 and 2022", [0, 4]),
        ("kind is null", [3]),
        ("Kind is not null".lower(), [0, 1, 2, 4]),
        ("not kind is null", [0, 1, 2, 4]),
        ("not (kind = 'map' or year > 2021)", [1]),
        ("kind = 'map' or kind = 'photo' and year < 2020", [0]),
        ("(kind = 'map' or kind = 'photo') and year > 2020", [4]),
        ("\"a column\" = 'It''s'", [1]),
        ('"q""x" < 0', [3]),
        ('"q""x" = -4', [3]),
        ("\"a column\" = ''", [4]),
        ("\"a column\" like '100\\%'", []),
        ("  year>2020and kind='photo'".replace("2020and", "2020 and"), [4]),
        ("kind = 'a'' OR 1=1 --'", []),
        ("year < 99999999999999999999999", [0, 1, 2, 4]),
        ("kind = 2019", []),
    ],
)
def test_a_condition_means_what_it_says(table, text, rows):
    assert passing(table, text) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name of a column"),
        ("year", "a comparison"),
        ("year >", "a number"),
        ("year > 'x'", "without quotes"),
        ("kind > 5", "single quotes"),
        ("kind between 1 and 2", "single quotes"),
        ("year like '2%'", "only texts"),
        ("year > 2020 kind = 'map'", "'and' or 'or'"),
        ("(year > 2020", "expected ')'"),
        ("year > 2020)", "'and' or 'or'"),
        ("year in 2020", "expected '('"),
        ("year in ()", "a number"),
        ("kind is 5", "expected 'null'"),
        ('kind = "map"', "single quotes"),
        ("kind = 'map", "can't be read"),
        ("kind = map", "single quotes"),
        ("yaer > 2020", "Did you mean year"),
        ("c0 > 2020", "There is no column 'c0'"),
        ("items.c0 = 1", "can't be read"),
        ("year > 2020; drop table items", "can't be read"),
        ("year > 2020 -- x", "can't be read"),
        ("year > (select 1)", "a number"),
        ("random() > 0", "There is no column 'random'"),
        ("year > 20x", "can't be read"),
        ("not " * 60 + "year > 1", "nested too deeply"),
        ("(" * 5000 + "year > 1" + ")" * 5000, "at most 10,000"),
        ("(" * 4000 + "year > 1" + ")" * 4000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_says_why_and_where(text, said):
    with pytest.raises(ConfigError) as error:
        parse(text, COLUMNS)
    assert said.lower() in str(error.value).lower()


def test_the_place_of_a_fault_is_shown():
    with pytest.raises(ConfigError, match=r"year > 2020 and >>kinds = 'x'|no column 'kinds'"):
        parse("year > 2020 and kinds = 'x'", COLUMNS)
    with pytest.raises(ConfigError, match=r"year >>>2020x"):
        parse("year >2020x", COLUMNS)


WORDS = ["year", "kind", '"a column"', '"', "'", "''", "'map'", "2020", "-1.5e3", "and", "or",
         "not", "in", "like", "is", "null", "between", "(", ")", ",", "=", "<", ">=", "<>", ";",
         "--", "/*", "c0", "select", "union", "\0", "é", " ", "%", "\\"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_a_condition_that_sqlite_takes_or_a_config_error(text):
    try:
        condition = parse(text, COLUMNS)
    except ConfigError:
        return
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (c0 REAL, c1 TEXT, c2 TEXT, c3 REAL)")
    query = f"SELECT 1 FROM items WHERE {condition.sql}"  # noqa: S608
    connection.execute(query, condition.parameters)
    assert set(condition.sql) <= set("c0123 ()=<>!?,ABDEIKLNORTSUW")
    assert condition.sql.count("?") == len(condition.parameters)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_in_quotes_is_that_text(value):
    quoted = value.replace("'", "''")
    assert parse(f"kind = '{quoted}'", COLUMNS).parameters == (value,)
