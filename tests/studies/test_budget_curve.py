"""The budget curve: which runs make which points, and a file that is whole or not there."""

import itertools
import struct

import pytest
from matplotlib.container import ErrorbarContainer

from studies.figures import budget_curve, styles
from studies.figures.budget_curve import draw, draw_series, new_figure, points_of, series_of


def run(name, stage="train", seed=1, params=8, auc=0.8, model="fm", dataset="movielens",
        manifest="m", snapshot=None,
        **settings):
    settings = {"model": model, "dataset": dataset, "embedding": "uniform", **settings}
    return {"run_id": name, "stage": stage, "seed": seed, "num_embedding_params": params,
            "test_auc": auc,
            "manifest": manifest, "settings": {**settings, "latent_dim": params},
            "identity": {"settings": settings},
            **({"snapshot": snapshot} if snapshot else {})}


def ticket(name, budget, search="s", source="cut", **more):
    snapshot = {"source": source, "budgets": [budget], "run_id": search}
    return run(name, "retrain", params=more.pop("params", budget), snapshot=snapshot,
               embedding="masked",
               **{"rewind": "all", **more})


LR = run("lr", params=0, auc=0.7, model="linear")


def drawn(results):
    axes = new_figure(budget_curve.COLUMN).add_subplot()
    draw_series(axes, series_of(results))
    return axes


def test_seeds_share_a_point_with_mean_and_spread():
    (point,) = points_of([ticket("a", 100, seed=1, auc=0.80), ticket("b", 100, seed=2, auc=0.82)])
    assert point.params == 100
    assert point.mean == pytest.approx(0.81)
    assert point.spread == pytest.approx(0.02 / 2 ** 0.5)


def test_points_rise_in_parameters_and_tickets_of_one_budget_share_one():
    points = points_of([ticket("c", 500, params=480), ticket("a", 100, params=90),
                        ticket("b", 100, seed=2, params=96)])
    assert [point.params for point in points] == [93, 480]
    assert [len(point.aucs) for point in points] == [2, 1]


def test_uniform_widths_make_one_series_and_tickets_another():
    series = series_of([run("a", latent_dim=8), run("b", latent_dim=16, params=16),
                        ticket("t", 100), LR,
                        run("s", "search", embedding="pep")])
    assert {label: len(results) for label, results in series.items()} == {"PEP": 1, "uniform": 2,
                                                                          "LR": 1}


def test_runs_that_differ_in_a_setting_are_not_mixed():
    mixed = [ticket("a", 100), ticket("b", 100, re_init=True),
             ticket("c", 100, source="cut_last_magnitude")]
    assert list(series_of(mixed)) == ["PEP", "PEP, re_init true", "cut by |V| alone"]


def test_tickets_of_searches_that_differ_are_not_mixed():
    searches = [run("s", "search", embedding="pep"),
                run("z", "search", embedding="pep", threshold_type="dimension")]
    tickets = [ticket("a", 100, search="s"), ticket("b", 100, search="z")]
    assert list(series_of([*searches, *tickets])) == ["PEP", "PEP, search threshold_type dimension"]


def test_searches_that_differ_in_their_budgets_alone_are_mixed():
    searches = [run("s", "search", embedding="pep", candidate_p=[9]),
                run("z", "search", embedding="pep")]
    assert list(series_of([*searches, ticket("a", 9), ticket("b", 100, search="z")])) == ["PEP"]


def test_what_keeps_a_run_out_of_the_pages_is_said_even_where_all_runs_share_it():
    short = {**run("a", max_epochs=2), "stop_reason": "max_epochs"}
    long = {**run("b", max_epochs=300), "stop_reason": "early_stop"}
    assert list(series_of([short])) == ["uniform, cut at 2 epochs"]
    assert {label: len(runs) for label, runs in series_of([short, long]).items()} == {
        "uniform": 1, "uniform, cut at 2 epochs": 1}
    assert list(series_of([ticket("t", 9, rewind="embedding"), ticket("u", 9)])) == [
        "PEP", "PEP, embedding alone rewound"]
    assert list(series_of([{**long, "data": {"rows": 1000}}])) == ["uniform, 1,000 rows"]


def test_early_stopped_runs_of_other_limits_are_one_and_a_seed_counts_once():
    runs = [{**run(f"r{most}", max_epochs=most, auc=0.8 + most / 1e4), "stop_reason": "early_stop"}
            for most in (150, 300)]
    (point,) = points_of(series_of(runs)["uniform"])
    assert point.aucs == [pytest.approx(0.83)]


def test_decays_say_what_they_are_of():
    alone = run("a", l2_regularization=1e-4, weight_decay=1e-5)
    every = run("b", l2_regularization=1e-4, weight_decay=None)
    assert list(series_of([alone, every])) == [
        "uniform, l2_regularization 0.0001",
        "uniform, l2_regularization 0.0001 (embedding alone; the rest 1e-05)"]


def test_other_data_is_another_series():
    assert len(series_of([run("a"), run("b", manifest="other")])) == 2


def test_a_run_that_is_given_twice_counts_once():
    assert len(series_of([run("a"), run("a")])["uniform"]) == 1


def test_lr_is_a_horizontal_line_and_curves_stand_on_a_log_axis():
    axes = drawn([run("a"), run("b", params=64, auc=0.9), LR])
    assert axes.get_xscale() == "log"
    (curve,) = axes.containers
    assert isinstance(curve, ErrorbarContainer)
    assert curve.lines[0].get_xdata().tolist() == [8, 64]
    assert curve.lines[0].get_ydata().tolist() == [0.8, 0.9]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["uniform", "LR"]
    assert any(list(line.get_ydata()) == [0.7, 0.7] for line in axes.lines)


def test_methods_keep_their_colours_in_whatever_order_they_come_and_variants_differ_by_marker():
    axes = drawn([run("a", embedding="mde"), ticket("t", 100), ticket("r", 100, rewind="embedding"),
                  run("u"),
                  run("w", lr=0.1)])
    found = {container.get_label(): container.lines[0] for container in axes.containers}
    assert {label: line.get_color() for label, line in found.items()} == {
        "PEP": styles.BLUE, "PEP, embedding alone rewound": styles.BLUE, "uniform": styles.BLACK,
        "uniform, lr 0.1": styles.BLACK, "MDE": styles.STYLES["mde"][0]}
    assert len({(line.get_color(), line.get_marker()) for line in found.values()}) == 5


def test_no_two_methods_look_alike():
    for looks in (styles.STYLES, styles.UMEC, styles.AFM, styles.GRANULARITIES):
        assert len({(colour, marker) for colour, marker, _ in looks.values()}) == len(looks)
    alone = [styles.STYLES[name][0]
             for name in ("PEP", "uniform", "mde", "mgqe", "darts", "hash", "qr", "tt",
                                                 "magnitude pruning", "iterative pruning",
                          "random mask")]
    assert len(set(alone)) == len(alone)


def test_error_bars_and_the_axis_say_that_there_are_several_seeds():
    single, several = drawn([run("a")]), drawn([run("a"), run("b", seed=2, auc=0.82)])
    assert not single.containers[0].has_yerr
    assert several.containers[0].has_yerr
    assert "s.d." in several.get_ylabel()
    assert single.get_ylabel() == "test AUC (one seed)"


def test_budgets_that_the_search_did_not_reach_are_marked():
    assert "hollow" in drawn([ticket("a", 100,
                                     source="cut_last")]).get_legend().get_texts()[-1].get_text()
    assert len(drawn([ticket("a", 100)]).get_legend().get_texts()) == 1


def test_the_file_holds_this_data_set_and_model_alone(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(budget_curve, "draw_series", lambda axes, series: seen.append(series))
    draw([run("a"), run("b", model="deepfm"), run("c", dataset="criteo"), LR], "movielens", "fm",
         tmp_path)
    assert {label: [result["run_id"] for result in results] for label,
            results in seen[0].items()} == {
        "uniform": ["a"], "LR": ["lr"]}


def test_a_png_of_one_column_is_written(tmp_path):
    path = draw([run("a"), ticket("t", 100), LR], "movielens", "fm", tmp_path / "figures")
    assert path == tmp_path / "figures" / "movielens_fm.png"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (680, 632)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nothing_to_draw_makes_no_file(tmp_path):
    assert draw([run("a")], "movielens", "autoint", tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_failed_drawing_leaves_the_old_figure(tmp_path, monkeypatch):
    path = draw([run("a")], "movielens", "fm", tmp_path)
    before = path.read_bytes()

    def fail(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space"):
        draw([run("a"), LR], "movielens", "fm", tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_of_many_series_those_at_hand_the_usual_ones_and_the_longest_are_drawn(tmp_path,
                                                                               monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(budget_curve, "draw_series", lambda axes, series: seen.append(list(series)))
    many = []
    for decay in range(2, 12):
        many += [run(f"{width}-{decay}", latent_dim=width, params=width, l2_regularization=decay)
                 for width in range(8, 8 + decay)]
    usual = [ticket("t", 100), ticket("z", 100, lr=7.0), run("u", latent_dim=8), LR]
    with caplog.at_level("INFO", "pep"):
        draw([*many, *usual], "movielens", "fm", tmp_path / "figures", of=[usual[1]])
    assert seen == [["PEP", "uniform", "PEP, lr 7.0",
                     *(f"uniform, l2_regularization {decay} (embedding alone; the rest 1e-05)"
                       for decay in (10, 11, 8, 9)), "LR"]]
    said = f"shows 8 of 14 series; python -m studies.pages {tmp_path} fig2 --new has every scheme"
    assert said in caplog.text


def test_the_legend_stands_below_the_curves_and_has_room_there(tmp_path):
    def height(decays):
        picture = draw([run(f"r{decay}", l2_regularization=decay) for decay in decays], "movielens",
                       "fm", tmp_path)
        return struct.unpack(">II", picture.read_bytes()[16:24])[1]

    assert height(range(7)) > height(range(3)) > 520
    axes = drawn([run("a"), run("b", params=64, auc=0.9), LR])
    axes.figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_values_that_crowd_get_most_of_the_axis_and_the_rest_is_shaded():
    axes = new_figure((3.4, 2.6)).add_subplot()
    values = [0.5, 0.6, *(0.84 + i / 1000 for i in range(10))]
    axes.plot(values)
    budget_curve.widen_crowd(axes, values)
    low, high = axes.transAxes.inverted().transform(axes.transData.transform(
        [(0, values[2]), (0, values[-1])]))[:, 1]
    assert high - low > 0.4
    assert len(axes.patches) == 1
    budget_curve.widen_crowd(axes, values, end=0.86)
    assert axes.get_ylim()[1] > 0.86  # of the error bar
    even = new_figure((3.4, 2.6)).add_subplot()
    even.plot(range(12))
    budget_curve.widen_crowd(even, list(range(12)))
    assert even.get_yscale() == "linear"


def test_ticks_are_where_their_labels_say():
    axes = new_figure((3.4, 2.6)).add_subplot()
    values = [0.8936, 0.8971, 0.9033, 0.9009, 0.8914, 0.8989, 0.9042, 0.9015, 0.9001, 0.8988]
    axes.plot(values)
    budget_curve.widen_crowd(axes, values)
    found = {label.get_text(): tick
             for label, tick in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert any(tick == pytest.approx(0.9025) for tick in found.values())
    assert {text: float(text) for text in found} == pytest.approx(found, abs=1e-6)


def test_ticks_of_a_narrow_panel_keep_apart():
    panels = new_figure((7.0, 2.9)).subplots(1, 3)
    for axes in panels:
        axes.plot([500, 100_000], [0, 1])
        budget_curve.log_sizes(axes)
    panels[0].figure.canvas.draw()
    boxes = [label.get_window_extent() for label in panels[0].get_xticklabels()
             if label.get_text() and 500 <= label.get_position()[0] <= 100_000]
    assert len(boxes) > 3
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
