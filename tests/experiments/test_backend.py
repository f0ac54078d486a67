"""What computes is no part of the experiment: the same run folder, the same numbers within
rounding, and a run goes on with another backend.
"""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fsp_dynamics as fsp
from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.rate.config import SolverConfig
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.torch_backend.tensors import chosen_device
from fsp_dynamics.training import evaluation
from fsp_dynamics.training.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:epoch .* output")]
TORCH = Backend("torch", "cpu")
CLOSE = 5e-5  # of weights up to .5 after three epochs in float32; 4e-6 was seen
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def quietly(source, out, backend=TORCH, **options):
    return train(source, out=out, backend=backend, **{"progress": False, "threads": 1, **options})


def said_of(run):
    return RunFolder(run.folder).read_json("environment.json")


def files(run):
    """Their names, without the hashes in those of checkpoints."""
    return sorted(
        re.sub(r"-[0-9a-f]{12}\.", ".", str(path.relative_to(run.folder)))
        for path in run.folder.rglob("*")
        if path.is_file()
    )


def weights(run):
    return run.network("last").parameters()


def distance(run, other):
    """The largest difference of any weight."""
    here, there = weights(run), weights(other)
    assert here.keys() == there.keys()
    return max(np.abs(here[name] - there[name]).max() for name in here)


def same_bits(run, other):
    return distance(run, other) == 0.0


# Which one is meant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("cuda",), "backend = 'cuda'"),
        (("trch",), "did you mean 'torch'"),
        (("numba", "cpu"), "device = 'cpu' belongs to backend torch"),
        (("numba", None, "full"), "products = 'full' belongs to backend torch"),
        (("torch", "cpu", "tf23"), "did you mean 'tf32'"),
    ],
)
def test_what_is_no_backend_is_refused(given, words):
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Backend(*given)


def test_a_device_beside_a_backend_is_taken_and_never_ignored():
    assert backend_of("torch", "cpu", "bf16") == Backend("torch", "cpu", "bf16")
    assert backend_of(Backend("torch", "cuda:1", "bf16"), "cpu") == Backend("torch", "cpu", "bf16")
    assert backend_of("torch", torch.device("cpu")) == TORCH
    for given in ({"device": "cpu"}, {"products": "tf32"}):
        with pytest.raises(ConfigurationError, match="belongs to backend torch"):
            backend_of(NUMBA, **given)


@pytest.mark.parametrize(
    "device", ["tpu", "", 0, "cpu:0", "cuda:", "cuda:x", "cuda:99", pytest.param("cuda", marks=no_cuda)]
)
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ConfigurationError, match=re.escape(f"device = {str(device)!r}")):
        Backend("torch", device).solver(SolverConfig())


def test_a_numbered_gpu_is_counted_in_whole_numbers(monkeypatch):
    """torch keeps the number in eight bits: cuda:256 would be cuda:0."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(chosen_device("cuda:1")) == "cuda:1"
    for name in ("cuda:2", "cuda:256"):
        with pytest.raises(
            ConfigurationError, match=f"device = '{name}', but there are 2 CUDA devices, numbered from 0"
        ):
            chosen_device(name)


def test_a_numbered_gpu_is_refused_for_several_processes():
    with pytest.raises(
        ConfigurationError, match="device = 'cuda:0' for 2 processes, expected cuda: each takes a GPU of its own"
    ):
        Backend("torch", "cuda:0").refuse_one_gpu_for_several(2)
    Backend("torch", "cuda:0").refuse_one_gpu_for_several(1)
    for device in ("cuda", "cpu", "auto", None):
        Backend("torch", device).refuse_one_gpu_for_several(2)


def test_solvers_that_torch_does_not_have_and_products_of_others_are_refused():
    with pytest.raises(
        ConfigurationError, match="'numba_ode' does not run on backend torch; choose one of: fixed_point, torch_ode"
    ):
        TORCH.solver(SolverConfig(name="numba_ode"))
    with pytest.raises(
        ConfigurationError, match=r"solver\.method = 'newton' does not run on backend torch; use backend numba"
    ):
        TORCH.solver(SolverConfig(method="newton"))
    with pytest.raises(ConfigurationError, match="products = 'bf16' belongs to solver fixed_point"):
        Backend("torch", "cpu", "bf16").solver(SolverConfig(name="torch_ode"))


def test_without_torch_the_message_names_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torchdiffeq" else real(name, *more)
    )
    with pytest.raises(
        ConfigurationError, match=r"needs torchdiffeq; pip install 'fsp_dynamics\[torch\]', or use backend numba"
    ):
        TORCH.solver(SolverConfig())


# A run on it


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    """Three epochs by the kernels, and the same three on torch."""
    folder = tmp_path_factory.mktemp("pair")
    return quietly(tiny(), folder / "numba", NUMBA), quietly(tiny(), folder / "torch")


def test_the_folder_and_the_numbers_are_those_of_the_other(pair):
    compiled, tensors = pair
    assert files(compiled) == files(tensors)
    for one, two in zip(compiled.metrics, tensors.metrics, strict=True):
        assert one.keys() == two.keys()
        for part in ("train", "valid", "test"):
            assert two[f"{part}_error"] == pytest.approx(one[f"{part}_error"], abs=1.0)
    assert distance(compiled, tensors) < CLOSE
    assert distance(compiled, tensors) > 0, "the same bits: torch has not computed this"
    assert said_of(compiled)["backend"] == "numba"
    assert said_of(tensors)["backend"] == f"torch {torch.__version__} on cpu, full products"


@pytest.mark.parametrize("order", [(NUMBA, TORCH), (TORCH, NUMBA)], ids=["numba, then torch", "torch, then numba"])
def test_a_run_goes_on_with_the_other_backend(pair, tiny, tmp_path, order):
    quietly(tiny(), tmp_path, order[0], epochs=1)
    with pytest.warns(UserWarning, match="not the environment the run began in"):
        run = quietly(tiny(), tmp_path, order[1], resume=True)
    assert [record["epoch"] for record in run.metrics] == [1, 2, 3]
    for other in pair:
        assert distance(run, other) < CLOSE
    assert ("torch" in said_of(run)["backend"]) == (order[0] is TORCH)
    (resumed,) = said_of(run)["resumed"]
    assert ("torch" in resumed["backend"]) == (order[1] is TORCH)


def test_resumed_on_torch_it_has_the_bits_of_an_unbroken_run(pair, tiny, tmp_path):
    quietly(tiny(), tmp_path, epochs=1)
    assert same_bits(quietly(tiny(), tmp_path, resume=True), pair[1])


def test_killed_before_its_checkpoint_it_does_the_epoch_again(pair, tiny, tmp_path, monkeypatch, killed):
    killed(2)
    with pytest.raises(KeyboardInterrupt):
        quietly(tiny(), tmp_path)
    monkeypatch.undo()
    run = quietly(tiny(), tmp_path, resume=True)
    assert same_bits(run, pair[1])
    assert [record["test_error"] for record in run.metrics] == [record["test_error"] for record in pair[1].metrics]


def test_either_backend_judges_what_the_other_learned(pair):
    for run in pair:
        by_kernels, on_torch = run.evaluate(), run.evaluate(backend="torch", device="cpu")
        assert on_torch.unconverged == by_kernels.unconverged == 0
        assert on_torch.error == pytest.approx(by_kernels.error, abs=0.26), "one image in 400 may lie on the border"
    with pytest.raises(ConfigurationError, match="belongs to backend torch"):
        pair[0].evaluate(device="cpu")


def test_the_device_makes_the_drive_too(pair, monkeypatch):
    monkeypatch.setattr(
        evaluation, "drive", lambda *given: pytest.fail("the product with all images was made on the host")
    )
    assert pair[1].evaluate(backend="torch", device="cpu").unconverged == 0


def test_images_are_refused_there_as_here():
    network, recipe = (
        fsp.loop_network([4, 5, 3], rng=0),
        Recipe(Sgd(LearningRates(1.0, (1.0,), 1.0)), TORCH.solver(SolverConfig())),
    )
    driven, _ = evaluation.free_phase_solver(network, recipe, None)
    for images, error in ((np.full((2, 4), np.nan), NotFiniteError), (np.zeros((2, 5)), ShapeError)):
        with pytest.raises(error, match="images"):
            driven(images)


def test_reciprocal_networks_and_torchdiffeq_too(tiny, tmp_path):
    table = tiny(network={"kind": "reciprocal"}, learning={"epochs": 1, "rates": {"loop": 0.0}})
    del table["network"]["loop_scale"]
    assert distance(quietly(table, tmp_path / "picard", NUMBA), quietly(table, tmp_path / "torch")) < 1e-3
    exact = {"epochs": 1, "data.limit": 40}
    integrated = quietly(
        tiny(), tmp_path / "integrated", **exact, **{"solver.name": "torch_ode", "solver.method": "dopri5"}
    )
    assert distance(quietly(tiny(), tmp_path / "passes", **exact), integrated) < 2e-3


# On the command line


def shown(capsys):
    """What came to stderr."""
    return capsys.readouterr().err


SMALL = [
    "--data.limit",
    "120",
    "--data.validation",
    "200",
    "--network.hidden",
    "12",
    "--learning.rates.forward",
    "7.0",
    "--no-progress",
]


def test_auto_reports_the_device(tmp_path, capsys):
    assert main(["train", "digits", "--out", str(tmp_path / "run"), *SMALL, "--epochs", "1", "--backend", "torch"]) == 0
    assert f"training on torch {torch.__version__} on " in shown(capsys)
    assert main(["evaluate", str(tmp_path / "run"), "--backend", "torch", "--device", "cpu"]) == 0


@no_cuda
def test_a_gpu_that_is_not_there_is_one_line_and_no_folder(tmp_path, capsys):
    assert (
        main(["train", "digits", "--out", str(tmp_path / "run"), *SMALL, "--backend", "torch", "--device", "cuda"]) == 2
    )
    reported = shown(capsys).splitlines()
    assert len(reported) == 1
    assert reported[0].startswith("fsp: device = 'cuda', but ")
    assert reported[0].endswith("; use cpu or auto")
    assert not (tmp_path / "run").exists()


def test_a_device_of_numba_is_refused(tmp_path, capsys):
    assert main(["train", "digits", "--out", str(tmp_path / "run"), *SMALL, "--device", "cpu"]) == 2
    assert "fsp: device = 'cpu' belongs to backend torch" in shown(capsys)
    assert not (tmp_path / "run").exists()
