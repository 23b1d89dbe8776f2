"""YAML as users write it: what is refused, with its line, and what is read as what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuxictr_miss.config.yaml_files import read_entries, read_value, read_values
from fuxictr_miss.errors import InputError


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["'a' twice", "line 1", "line 3"]),
        ("2024: {x: 1}\n'2024': {x: 2}\n", ["'2024' twice"]),
        ("a:\n  k: 1\n  j: 2\n  k: 3\n", ["'k' twice", "line 2", "line 4"]),
        ("a: [{k: 1, k: 2}]\n", ["'k' twice"]),
        ("_t: &t {k: 1, k: 2}\na: {<<: *t}\n", ["'k' twice"]),
        ("a: {k: 1, k: null}\n", ["'k' twice"]),
        ("a:\n\nb: 1\na: 2\n", ["'a' twice", "line 1", "line 4"]),
        ("a:\n\tk: 1\n", ["line 2", "tab"]),
        ("a: 1\n\tb: 2\n", ["tab"]),
        (b"a: 1\nb: caf\xe9\n", ["line 2", "0xe9", "UTF-8"]),
        ("a: b\n".encode("utf-16"), ["UTF-8"]),
        ("- a\n- b\n", ["name: value"]),
        ("just text\n", ["name: value"]),
        ("a: [1, 2\nb: 3\n", ["line 2"]),
        ("a: b: c\n", ["line 1"]),
        ("a: *nothing\n", ["line 1", "alias"]),
        ("a: !!python/tuple {x: y}\n", ["line 1"]),
        ("a: !!python/name:os.system\n", ["line 1", "only !!python/tuple"]),
        ("a: !!python/object/apply:os.system [ls]\n", ["line 1"]),
        ("a: 2024-13-45\n", ["month"]),
        ("a: 1\n---\nb: 2\n", ["document"]),
        ("a: \x00\n", ["not allowed"]),
        ("a: !!bool maybe\n", ["cannot read"]),
        ("? [1]\n: 2\n", ["line 1"]),
        ("a: 1\nb: {<<: 3}\n", ["line 2", "merging"]),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence_with_the_place(tmp_path, content, words):
    with pytest.raises(InputError) as error:
        read_entries(written(tmp_path, content))
    said = str(error.value)
    assert "file.yaml" in said
    assert "\n" not in said
    assert all(word in said for word in words), said


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    for path in (tmp_path / "gone.yaml", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_entries(path)


def test_anchors_and_merge_keys_work_and_an_entry_overrides_what_it_merges(tmp_path):
    content = "_t: &t {k: 1, j: 2}\n_u: &u {<<: *t, i: 3}\na: {<<: *u, k: 4}\nb: {<<: [*t, *u]}\n"
    values = read_values(written(tmp_path, content))
    assert values["a"] == {"k": 4, "j": 2, "i": 3}
    assert values["b"] == {"k": 1, "j": 2, "i": 3}


def test_a_null_may_be_followed_by_the_value_as_in_an_example_of_fuxictrs(tmp_path):
    content = "DIN_test:\n  feature_specs: null\n  epochs: 1\n  feature_specs: [{name: a}]\n"
    assert read_values(written(tmp_path, content))["DIN_test"]["feature_specs"] == [{"name": "a"}]


def test_an_entry_knows_its_line(tmp_path):
    entries = read_entries(written(tmp_path, "# a comment\n\na: 1\nb:\n  c: 2\n"))
    assert entries["a"].place.endswith("file.yaml, line 3")
    assert entries["b"].place.endswith("file.yaml, line 4")


def test_names_stay_as_written(tmp_path):
    content = "2024_01: {dataset_id: 2024_01, model: no}\n010: {dataset_id: '7'}\non: {model: ~}\n"
    assert read_values(written(tmp_path, content)) == {
        "2024_01": {"dataset_id": "2024_01", "model": "no"},
        "010": {"dataset_id": "7"},
        "on": {"model": None},
    }


def test_scientific_numbers_need_no_point_and_quotes_make_text(tmp_path):
    content = "a: 1e-3\nb: [2E5, -1e+2, .5e1]\nc: '1e-3'\nd: 1e\ne: e3\n"
    assert read_values(written(tmp_path, content)) == {
        "a": 1e-3, "b": [2e5, -1e2, 5.0], "c": "1e-3", "d": "1e", "e": "e3"
    }  # fmt: skip
    assert read_value("a", "1e-3") == 1e-3


@pytest.mark.parametrize(
    ("text", "number"), [("0100", 64), ("-01_7", -15), ("1:30", 90), ("1:30.5", 90.5), ("00", 0)]
)
def test_a_number_that_yaml_takes_for_another_is_refused(tmp_path, text, number):
    file = written(tmp_path, f"a:\n  epochs: [1, {text}]\n")
    said = f"YAML takes {text} for the number {number}"
    with pytest.raises(InputError, match=f"file.yaml, line 2: {said}"):
        read_entries(file)
    with pytest.raises(InputError, match=f"^{said}"):
        read_value("epochs", text)


def test_what_only_looks_like_such_a_number_is_read(tmp_path):
    content = "a: [0, -0, 0x10, 0b11, 1_000, 0.5, 08, '0100', '1:30', .inf]\n"
    assert read_values(written(tmp_path, content))["a"] == [
        *(0, 0, 16, 3, 1000, 0.5, "08", "0100", "1:30", float("inf"))
    ]


def test_a_file_with_nothing_in_it_has_no_entries(tmp_path):
    for content in ("", "# nothing yet\n", "\ufeff"):
        assert read_entries(written(tmp_path, content)) == {}


PIECES = ["a", "b: 1", "\n", "\n  ", "- ", ": ", "{", "}", "[", "]", "&x ", "*x", "<<: ", "'", '"',
          "\t", "#", "|", ">", "!!int ", "!!set ", "!", "%", "@", "é", "\x00", "\r", "1e5", "---\n",
          "? ", ",", "2024-99-99", "0x", "~", "\ufeff", "=", "1:99", "_"]  # fmt: skip


@example("? ? =")  # a mapping as a name, of which YAML 1.1 makes a scalar
@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.binary(max_size=30))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        said = list(read_entries(path))
    except InputError as error:
        said = [str(error)]
        assert "\n" not in said[0]
    assert all(isinstance(each, str) for each in said)


def test_the_tuples_of_fuxictrs_configs_are_tuples(tmp_path):
    """As BARS has them, in model configs and below the lists of a tuner's."""
    file = tmp_path / "tuner.yaml"
    file.write_text("a: !!python/tuple [x, y]\nb: [[!!python/tuple [x, y], !!python/tuple [z]]]\n")
    assert read_values(file) == {"a": ("x", "y"), "b": [[("x", "y"), ("z",)]]}
