"""What stays of a run: the networks that were to be kept, a table of its epochs, a picture."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from pictures import drawn
from test_runner import VARIANTS, quietly, same_bits, timeless

from fsp_dynamics.errors import CheckpointError
from fsp_dynamics.experiments import checkpoint, session
from fsp_dynamics.experiments.rate.building import build_network
from fsp_dynamics.experiments.runner import open_run
from fsp_dynamics.plotting import new_figure

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


def kept(tiny, every=1, **changes):
    return tiny(probes={"keep": every}, **changes)


def test_kept_networks_are_those_after_their_epochs(tiny, tmp_path, unbroken):
    run = quietly(kept(tiny, 2), out=tmp_path / "run", epochs=5)
    assert run.kept == (0, 2, 4)
    start, _ = build_network(run.config, 64, 10)
    assert all(np.array_equal(w, start.parameters()[name]) for name, w in run.network(0).parameters().items())
    short = quietly(tiny(), out=tmp_path / "short", epochs=2)
    assert all(
        np.array_equal(w, short.network("last").parameters()[name]) for name, w in run.network(2).parameters().items()
    )
    assert run.evaluate("test", 4).error == run.metrics[3]["test_error"]
    with pytest.raises(CheckpointError, match="no network of epoch 3; there are those of 0, 2, 4"):
        run.network(3)
    assert unbroken(tiny()).kept == ()
    with pytest.raises(CheckpointError, match=r"none was kept; train with probes\.keep"):
        unbroken(tiny()).network(0)


def test_keeping_changes_nothing(tiny, tmp_path, unbroken):
    run = quietly(kept(tiny), out=tmp_path)
    assert same_bits(run, unbroken(tiny()), "last")
    assert same_bits(run, unbroken(tiny()), "best")
    assert timeless(run.metrics) == timeless(unbroken(tiny()).metrics)


def same_kept(one, other):
    return one.kept == other.kept and all(same_bits(one, other, epoch) for epoch in one.kept)


@pytest.mark.parametrize("variant", ["paper", "momentum"])
def test_resuming_keeps_what_an_unbroken_run_keeps(tiny, tmp_path, unbroken, monkeypatch, killed, variant):
    """The networks may be an epoch ahead of the checkpoint too; on resuming they are dropped and
    made again.
    """
    table = kept(tiny, **VARIANTS[variant])
    killed(2)
    with pytest.raises(KeyboardInterrupt):
        quietly(table, out=tmp_path)
    monkeypatch.undo()
    assert open_run(tmp_path).kept == (0, 1, 2)
    killed(2)
    found = []
    monkeypatch.setattr(
        session, "keep_network", lambda folder, state, run: found.append((state.epoch, open_run(tmp_path).kept))
    )
    with pytest.raises(KeyboardInterrupt):
        quietly(table, out=tmp_path, resume=True)
    assert found == [(2, (0, 1))]
    monkeypatch.undo()
    assert same_kept(quietly(table, out=tmp_path, resume=True), unbroken(table))


@pytest.mark.parametrize("epoch", [0, 2])
def test_killed_while_a_network_is_kept_it_is_kept_on_resuming(tiny, tmp_path, unbroken, monkeypatch, epoch):
    table, real = kept(tiny), session.keep_network

    def dies(folder, state, run):
        if state.epoch == epoch:
            raise KeyboardInterrupt
        real(folder, state, run)

    for module in (session, checkpoint):
        monkeypatch.setattr(module, "keep_network", dies)
    with pytest.raises(KeyboardInterrupt):
        quietly(table, out=tmp_path)
    monkeypatch.undo()
    assert open_run(tmp_path).kept == tuple(range(epoch))
    assert same_kept(quietly(table, out=tmp_path, resume=True), unbroken(table))


def test_whether_networks_are_kept_may_change_on_resuming(tiny, tmp_path):
    quietly(kept(tiny, 1), out=tmp_path, epochs=1)
    assert quietly(tiny(), out=tmp_path, resume=True, epochs=2).kept == (0, 1)
    assert quietly(kept(tiny, 3), out=tmp_path, resume=True).kept == (0, 1, 3)


# Tables and pictures


def test_the_table_of_a_run_is_what_is_drawn(tiny, tmp_path):
    run = quietly(tiny(), out=tmp_path / "run")
    run.to_frame().to_csv(tmp_path / "run.csv", index=False)
    table = pandas.read_csv(tmp_path / "run.csv")
    assert table.epoch.tolist() == [1, 2, 3]
    errors, angles = run.plot().axes
    for label, (epochs, values) in drawn(errors).items():
        np.testing.assert_array_equal([epochs, values], [table.epoch, table[f"{label.split()[0]}_error"]])
    for label, (epochs, values) in drawn(angles).items():
        np.testing.assert_array_equal([epochs, values], [table.epoch, table[f"alignment_degrees.{label.split()[0]}"]])
    assert (len(drawn(errors)), len(drawn(angles))) == (3, 2)
    for place in (0, 1):
        assert table[f"saturation.output.{place}"].tolist() == [
            record["saturation"]["output"][place] for record in run.metrics
        ]
    assert run.to_frame().attrs["units"]["alignment_degrees.loop"] == "degrees"
    assert run.to_frame().attrs["units"]["test_error"] == "%"


def test_a_run_is_drawn_at_the_given_path_and_nothing_else_is_written(tiny, tmp_path):
    run = quietly(tiny(), out=tmp_path / "run", epochs=1)
    before = sorted(tmp_path.rglob("*"))
    own = new_figure(4, 3)
    assert run.plot(own.subplots()) is own
    assert len(run.plot().axes) == 2
    assert sorted(tmp_path.rglob("*")) == before
    run.plot(path=tmp_path / "new" / "run.svg")
    assert b"<svg" in (tmp_path / "new" / "run.svg").read_bytes()
