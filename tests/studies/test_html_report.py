"""The report: what comes first, tables in boxes of their own, what is missing folded at the end."""

import re
from html.parser import HTMLParser

from synthetic_results import put, result

from studies import html_report
from studies.page import Page, number
from studies.pages import report
from studies.table import Table

RUNS = [result("a", auc=0.80), result("b", seed=2, auc=0.82)]


def page(**parts):
    made = Page("fig10", "movielens", "fm", "Figure 10: made")
    made.rows, made.behind = [{"epoch": 2, "runs": "a b"}], RUNS
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def written(tmp_path, *pages):
    path = html_report.write([(one, tmp_path) for one in pages], RUNS, tmp_path / "report.html")
    return path.read_text()


def test_verdict_date_machine_and_contents_come_first_and_what_is_missing_last(tmp_path):
    said = written(tmp_path, page(verdicts=["PEP is better."], missing=["uniform: seed 3"]))
    order = [said.index(part) for part in (
        "PEP is better.", "Written on 2", "2 runs", 'href="#page0"', 'id="page0"', "<details",
        "(1 line)", "uniform: seed 3", "</details>")]
    assert order == sorted(order)


def test_auc_beside_the_papers_is_counted_in_the_verdict(tmp_path):
    auc = number("AUC", RUNS, lambda run: run["test_auc"], 0.7)._replace(sampling=0.001)
    assert "AUCs that the paper gives too: 1 higher" in written(tmp_path, page(numbers=[auc]))


def test_every_table_scrolls_in_its_own_box_and_every_tag_is_closed(tmp_path):
    table = Table(["a", "b"], [["<1>", "2"]])
    said = written(tmp_path, page(tables=[table, table], missing=["x"]))
    assert said.count("<table>") == said.count('<div class="table"><table>') == 2
    assert ".table { overflow-x: auto" in said
    assert "&lt;1&gt;" in said
    assert 'name="viewport"' in said
    opened = []

    class Closed(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Closed().feed(said)
    assert opened == []


def test_a_folder_without_runs_says_what_is_missing(tmp_path):
    said = report(tmp_path, tmp_path / "planted").read_text()
    assert "Nothing has been run yet." in said
    assert "Table 4: PEP-0 against LR on MovieLens-1M" in said


def test_a_page_has_one_place_in_the_contents(tmp_path):
    for run in RUNS:
        put(tmp_path, run)
    said = report(tmp_path, tmp_path / "planted").read_text()
    assert sorted(re.findall('href="#(.*?)"', said)) == sorted(re.findall('id="(.*?)"', said))
    assert said.count('">Table 3: the data of MovieLens-1M</a>') == 1
