"""What a list of runs costs, and runs whose results are older than a field."""

import pickle
from argparse import Namespace
from dataclasses import replace

import pytest

from engine.run import RunContext, Unfinished
from studies import plan, planned_runs
from studies.names import MODELS
from studies.plan import PlannedRun


def finished(seconds, model="fm", embedding="mde", device="AMD EPYC", threads=1):
    return {"stage": "train", "settings": {"model": model, "embedding": embedding},
            "seconds": seconds,
            "device": device, "threads": threads}


def need(what, kind=("fm", "mde"), done=True):
    def run(context):
        if context.dry_run and not done:
            raise Unfinished(what)
        return {}

    return PlannedRun(what, kind, run)


NEEDS = [need("a"), need("a"), need("b", done=False), need("c", ("fm", "qr"), done=False),
         need("d", ("x", "y"))]


def test_cost_counts_each_run_once_and_shares_a_processor_by_threads():
    results = [finished(7200), finished(3600, embedding="qr", threads=2),
               finished(3600, device="NVIDIA H100")]
    assert plan.cost(NEEDS, results, RunContext()) == [
        # a, b: two hours of one thread; c: one of two threads
        ("AMD EPYC, 2 cores", "4", "2", "3.0", "2.0", "1"),
        ("NVIDIA H100", "4", "2", "3.0", "2.0", "1")]  # c goes by the model's other runs


def test_cost_without_any_finished_run_has_no_hours():
    assert plan.cost(NEEDS, [], RunContext()) == [("-", "4", "2", "-", "-", "4")]
    old = finished(7200)
    del old["threads"]
    assert plan.cost(NEEDS, [old], RunContext()) == [("-", "4", "2", "-", "-", "4")]


def test_a_result_that_is_older_than_a_field_is_missing_and_run_again():
    forced = []

    def run(context):
        forced.append(context.force)
        return {"sparsity": 1} if context.force else {}

    one = plan.recorded("sparsity", PlannedRun("search", ("fm", "pep"), run))
    with pytest.raises(Unfinished, match="search: the result is older than its field `sparsity`"):
        one.run(replace(RunContext(), dry_run=True))
    assert plan.missing([one], RunContext()) == [one]
    assert one.run(RunContext()) == {"sparsity": 1}
    assert forced[-2:] == [False, True]
    new = plan.recorded("thresholds",
                        PlannedRun("search", ("fm", "pep"), lambda context: {"thresholds": 1}))
    assert plan.missing([new], RunContext()) == []


@pytest.mark.parametrize("model", MODELS)
def test_every_planned_run_can_be_given_to_another_process(model, tmp_path):
    given = Namespace(dataset="movielens", model=model, seeds=[1], out=str(tmp_path), dense=None,
                      scheme=None)
    needs = planned_runs.everything(given)
    for page in ("afm", "umec-fig2", "umec-fig3", "table1"):
        needs += planned_runs.runs_behind(given, page)
    for one in needs:
        assert one.alone or pickle.loads(pickle.dumps(one.run)), one.what
    assert {one.what for one in needs if one.alone} == {
        need.what for need in planned_runs.runs_behind(given, "table2")}
