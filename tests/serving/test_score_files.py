"""Files of any form give the scores of their rows, in order, or one sentence and no file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from serving.conftest import ROWS

from fuxictr_miss.commands.main import main
from fuxictr_miss.errors import InputError
from fuxictr_miss.serving import Scorer, tables
from fuxictr_miss.serving.score_files import score_files

FRAME = pl.DataFrame(ROWS).with_columns(label=pl.Series([1, 0, 1]), user=pl.Series(["a", "b", "é"]))
HEADER = "user,item_id,item_history,cate_history,price,label\n"
LINE = "a,i1,i1^i2,c1^c2,10,1\n"


@pytest.fixture
def scorer(artefact: Path) -> Scorer:
    return Scorer(artefact)


def written(path: Path, frame: pl.DataFrame = FRAME) -> str:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv"])
@pytest.mark.parametrize("made", ["parquet", "csv"])
def test_every_form_gives_the_same_scores_and_the_kept_columns(scorer, tmp_path, ending, made):
    source, output = written(tmp_path / f"in.{ending}"), tmp_path / "new" / f"out.{made}"
    assert score_files(scorer, [source], output, ["user", "label"]) == 3
    rows = pl.read_parquet(output) if made == "parquet" else pl.read_csv(output)
    assert rows.columns == ["user", "label", "y_pred"]
    assert rows["user"].to_list() == ["a", "b", "é"]
    assert rows["label"].cast(pl.Int64).to_list() == [1, 0, 1]
    np.testing.assert_allclose(rows["y_pred"], scorer.score(ROWS), rtol=1e-6)
    assert [file.name for file in output.parent.iterdir()] == [output.name]


def test_parts_of_a_file_and_of_several_files_stay_in_order(scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr("fuxictr_miss.text.csv_lines._BLOCK_BYTES", 64)
    many = pl.concat([FRAME.with_columns(price=pl.lit(float(n))) for n in range(40)])
    files = [written(tmp_path / "1.csv", many), written(tmp_path / "2.csv", many[::-1])]
    shown = []
    rows = score_files(scorer, files, tmp_path / "out.csv", ["price"])
    table = pl.read_csv(tmp_path / "out.csv")
    both = pl.concat([many, many[::-1]])
    assert rows == len(table) == 240
    assert table["price"].to_list() == both["price"].to_list()
    np.testing.assert_allclose(table["y_pred"], scorer.score(both), rtol=1e-6)
    score_files(scorer, files, tmp_path / "1.out.csv", progress=lambda *now: shown.append(now))
    assert shown[-1] == (240, 1.0)
    assert shown == sorted(shown)
    parquet = written(tmp_path / "1.parquet", many)
    assert score_files(scorer, [parquet], tmp_path / "out.parquet", ["price"]) == 120
    assert pl.read_parquet(tmp_path / "out.parquet")["price"].to_list() == many["price"].to_list()


def test_an_empty_part_is_passed_over(scorer, tmp_path):
    rows = pl.read_parquet(written(tmp_path / "b.parquet"))
    rows.clear().write_parquet(tmp_path / "a.parquet")
    files = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    assert score_files(scorer, files, tmp_path / "out.parquet") == rows.height
    with pytest.raises(InputError, match=r"a\.parquet holds no rows"):
        score_files(scorer, files[:1], tmp_path / "none.parquet")
    (tmp_path / "cut.csv").write_text("")
    with pytest.raises(InputError, match=r"cut\.csv holds no rows"):
        score_files(scorer, [files[1], str(tmp_path / "cut.csv")], tmp_path / "none.parquet")


def test_kept_ids_are_written_as_they_are(scorer, tmp_path):
    ids = {"user": ["007", "1.10", "NA"], "number": [2**53 + 1, 1, None], "list": [[1], [], None]}
    table = FRAME.drop("user").with_columns(**{name: pl.Series(each) for name, each in ids.items()})
    source = written(tmp_path / "in.parquet", table)
    score_files(scorer, [source], tmp_path / "out.parquet", list(ids))
    assert pl.read_parquet(tmp_path / "out.parquet")[list(ids)].equals(table[list(ids)])
    with pytest.raises(InputError, match=r"out\.csv cannot be written .*\.parquet, which holds"):
        score_files(scorer, [source], tmp_path / "out.csv", ["list"])
    assert {file.name for file in tmp_path.iterdir()} == {"in.parquet", "out.parquet"}
    text = written(tmp_path / "in.csv", table.drop("list"))
    score_files(scorer, [text], tmp_path / "out.csv", ["user", "number"])
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [line.rpartition(",")[0] for line in lines] == ["007,9007199254740993", "1.10,1", "NA,"]


CSV = [
    (HEADER + LINE + 'b,"i1",i2,c1,"1",0\n', 2),  # quotes around whole fields
    (HEADER + 'b,"i1",i2,"c""1",1,0\n', 1),
    (HEADER + LINE.replace("\n", "\r\n") * 2, 2),
    ("\ufeff" + HEADER + LINE.rstrip(), 1),  # a byte order mark, and no line end at the end
    (HEADER + "b,,,,,\n", 1),  # all of it missing
    (HEADER.replace("user", "label") + LINE, 1),  # a column that is not read, twice
    (HEADER + 'a,i1,i1^i2,c1^c2, 10 ,"x, y"\n', 1),
    (HEADER + f'a,i1,{"^".join(["i1"] * 60_000)},"c1",1,1\n', 1),
]


@pytest.mark.parametrize(("text", "rows"), CSV)
def test_a_csv_is_read_as_it_is_meant(scorer, tmp_path, text, rows):
    (tmp_path / "in.csv").write_bytes(text.encode())
    assert score_files(scorer, [str(tmp_path / "in.csv")], tmp_path / "out.parquet") == rows


BAD = [
    ("", r"in\.csv holds no rows"),
    (HEADER, r"in\.csv holds no rows"),
    (HEADER.replace("price", "prize") + LINE, r"in\.csv: column 'price' is missing\..*'prize'"),
    (HEADER.replace("user", "price") + LINE, r"two columns 'price'"),
    (HEADER + LINE * 3 + LINE.replace("10", "ten"), r"in\.csv, row 4, column 'price': .* 'ten'"),
    (HEADER + LINE + "a,i1\n", r"in\.csv, line 3: it has not the 6 fields of the header"),
    (HEADER + LINE + "a,i1,i1,c1,1,1,1\n", r"in\.csv, line 3: it has not the 6 fields"),
    (HEADER + LINE + 'a,"i1,i1,c1,1,1\n' + LINE * 3, r"in\.csv, line 3 \(.*a quote is not closed"),
    (HEADER + LINE + 'a,"i1"x,i1,c1,1,1\n', r"in\.csv, line 3 \(.*mend the line"),
    (HEADER + LINE + 'a,"i1",i1\n', r"in\.csv, line 3: it has not the 6 fields"),
    ((HEADER + LINE + "é" + LINE).encode("latin-1"), r"in\.csv, line 3: b'\\xe9' is not UTF-8"),
    ((HEADER + LINE).encode("utf-16"), r"line 1: .* is not UTF-8"),
    ((HEADER + LINE * 2).replace("\n", "\r"), r"in\.csv: its lines end by \\r alone"),
    (HEADER + LINE.replace("i1^i2", "^i1"), r"in\.csv, row 1, column 'item_history'.*padding"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "match"), BAD)
def test_a_bad_csv_is_one_sentence_and_no_file(scorer, tmp_path, text, match):
    (tmp_path / "in.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=match) as caught:
        score_files(scorer, [str(tmp_path / "in.csv")], tmp_path / "out.parquet")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


def test_a_bad_row_far_behind_is_named_and_nothing_is_left(scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 100)
    bad = FRAME.with_columns(item_id=pl.lit("__PAD__"))
    source = written(tmp_path / "in.parquet", pl.concat([*[FRAME] * 400, bad]))
    match = r"in\.parquet, row 1201, column 'item_id': the value is '__PAD__'"
    with pytest.raises(InputError, match=match):
        score_files(scorer, [source], tmp_path / "out.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--output", "in.parquet"], "in.parquet is the input: name another output"),
        (["--output", "there.csv"], "there.csv exists: remove it, or name another output"),
        (["--output", "out.json"], "out.json must end in .parquet or .csv"),
        (["--output", "o.csv", "--input", "no.csv"], "no.csv is no file and no folder of"),
        (
            ["--output", "o.csv", "--input", "in.csv.gz"],
            "in.csv.gz must end in .csv, .tsv",
        ),
        (["--output", "o.csv", "--input", "."], ". holds cut.parquet and in.csv: name the files"),
        (["--output", "o.csv", "--model", "."], "vocab.json cannot be read"),
        (["--output", "o.csv", "--keep", "users"], "'users' is missing. Did you mean 'user'?"),
        (["--output", "o.csv", "--keep", "user,user"], "two columns 'user'"),
        (["--output", "o.csv", "--separator", "::"], "'::' must be a single ASCII"),
        (["--output", "o.csv", "--separator", ""], "'' must be a single ASCII"),
        (["--output", "o.csv", "--separator", "t"], "'t' is a letter or digit. If a tab is meant"),
        (["--output", "o.csv", "--threads", "0"], "--threads must be from 1 to 1024"),
        (["--output", "s3://bucket/o.csv"], "s3:/bucket cannot be written"),
        (["--output", "o.csv", "--input", "cut.parquet"], "cut.parquet cannot be read"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    artefact, elsewhere, monkeypatch, capsys, options, match
):
    for name in ("in.parquet", "in.csv"):
        written(elsewhere / name)
    (elsewhere / "there.csv").write_text("mine")
    (elsewhere / "cut.parquet").write_bytes((elsewhere / "in.parquet").read_bytes()[:500])
    (elsewhere / "in.csv.gz").write_bytes(b"")
    before = {file: file.read_bytes() for file in elsewhere.iterdir()}
    given = ["--model", str(artefact), "--input", "in.parquet", *options]
    monkeypatch.setattr("sys.argv", ["fuxictr-miss", "score", *given])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert {file: file.read_bytes() for file in elsewhere.iterdir()} == before


def test_the_command_says_how_many_rows_and_unknown_ids(artefact, elsewhere, monkeypatch, capsys):
    (elsewhere / "rows").mkdir()
    written(elsewhere / "rows" / "1.parquet")
    options = ["--model", str(artefact), "--input", "rows", "--output", "scores.parquet"]
    monkeypatch.setattr("sys.argv", ["fuxictr-miss", "score", *options, "--keep", "user"])
    main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("scores.parquet: 3 rows, ")
    assert said[1] == "unknown ids: item_id 1, item_history 0, cate_history 0"
    assert pl.read_parquet("scores.parquet").columns == ["user", "y_pred"]


MEMORY = """
import re, sys
from fuxictr_miss.serving import Scorer
from fuxictr_miss.serving.score_files import score_files
from pathlib import Path
score_files(Scorer(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]), ["user"])
most = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(most.group(1)) // 1000)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from there")
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_file(artefact, tmp_path, ending):
    """36,000 rows, some 28 MB of text, and five times as many."""
    long = "^".join(f"i{n}" for n in range(160))
    some = pl.concat([FRAME.with_columns(item_history=pl.lit(long))] * 12_000)
    used = []
    for times in (1, 5):
        source = tmp_path / f"{times}.{ending}"
        rows = pl.concat([some.lazy()] * times)
        if ending == "parquet":
            rows.sink_parquet(source, row_group_size=20_000)
        else:
            rows.sink_csv(source)
        command = [sys.executable, "-c", MEMORY, str(artefact), str(source)]
        command.append(str(tmp_path / f"{times}.out.parquet"))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        used.append(int(done.stdout))
    assert used[1] < used[0] + 60, used  # MB; the larger file has 110 MB more
