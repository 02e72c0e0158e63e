"""The registry of pages: one way to build each."""

import pytest
from made_results import lr, put, result, search, ticket

from studies.page import text, write
from studies.pages import PAGES


@pytest.mark.parametrize("name", PAGES)
def test_every_page_can_be_written_from_nothing_and_from_bare_records(tmp_path, name):
    old = [put(tmp_path, made)
           for made in (lr("l"), search("s"), ticket("t", searched="s"), result("u"))]
    for made in old:
        for field in ("data", "sparsity", "inference_bytes", "commit"):
            made.pop(field, None)
    for results in ([], old):
        page = PAGES[name](results, tmp_path, "movielens", "fm")
        assert page.name == name
        assert all(path.exists() for path in write(page, tmp_path / "pages"))
        assert "Missing:" in text(page)
