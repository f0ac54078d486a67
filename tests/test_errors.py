"""What every floor may say when it refuses."""

from __future__ import annotations

import inspect
import pickle

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics import errors
from fsp_dynamics.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    FspError,
    NoConvergenceError,
    NotAFileError,
    NotConvergedError,
    NotFiniteError,
    RankLostError,
    RunExistsError,
    RunLockedError,
    ShapeError,
    check_choice,
    check_finite,
    check_positive,
    check_shape,
    nearest,
)

BUILT_IN = {
    ConfigurationError: ValueError,
    ShapeError: ValueError,
    NotFiniteError: ArithmeticError,
    DatasetError: OSError,
    CheckpointError: ValueError,
    NotAFileError: OSError,
    RunExistsError: FileExistsError,
    RunLockedError: BlockingIOError,
    RankLostError: ConnectionError,
    NotConvergedError: RuntimeError,
    NoConvergenceError: RuntimeError,
}


def test_every_exception_is_listed_here() -> None:
    own = {
        e
        for _, e in inspect.getmembers(errors, inspect.isclass)
        if issubclass(e, Exception) and not issubclass(e, Warning) and e.__module__ == errors.__name__
    }
    assert own == {FspError, *BUILT_IN}


@pytest.mark.parametrize(("error", "built_in"), BUILT_IN.items(), ids=lambda e: e.__name__)
def test_each_is_ours_and_the_built_in_a_user_would_catch(error: type[Exception], built_in: type[Exception]) -> None:
    assert issubclass(error, FspError)
    assert issubclass(error, built_in)
    assert error.__doc__


def test_not_at_rest_carries_what_was_reached() -> None:
    reached = object()
    error = NotConvergedError("2 of 3 samples have not converged", reached)  # type: ignore[arg-type]
    assert error.equilibrium is reached
    assert str(error) == "2 of 3 samples have not converged"


def test_not_at_rest_survives_the_way_back_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(NotConvergedError("restless", {"residual": 1.0})))  # type: ignore[arg-type]
    assert str(error) == "restless"
    assert error.equilibrium == {"residual": 1.0}


# Names


def test_nearest_offers_one_or_lists_all() -> None:
    assert nearest("rk5", ["rk4", "euler"]) == "did you mean 'rk4'? (euler, rk4)"
    assert nearest("something else", ["rk4", "euler"]) == "choose one of: euler, rk4"
    assert nearest("x", iter(["b", "a"])) == "choose one of: a, b"


@given(st.sampled_from(["euler", "heun", "rk4"]))
def test_check_choice_returns_what_it_accepts(name: str) -> None:
    assert check_choice("method", name, iter(["euler", "heun", "rk4"])) == name


@pytest.mark.parametrize("name", ["rk5", "", None, 4])
def test_check_choice_refuses(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"method = .* is unknown; .*euler, rk4"):
        check_choice("method", name, iter(["rk4", "euler"]))  # type: ignore[arg-type]


# Shapes


@given(hnp.array_shapes(min_dims=0, max_dims=4), st.data())
def test_check_shape_accepts_the_shape_and_wildcards(shape: tuple[int, ...], data: st.DataObject) -> None:
    expected = tuple(data.draw(st.sampled_from([n, None])) for n in shape)
    check_shape("x", np.zeros(shape), expected)


@given(hnp.array_shapes(min_dims=1, max_dims=4), st.data())
def test_check_shape_refuses_one_wrong_length(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    wrong = tuple(n + (k == axis) for k, n in enumerate(shape))
    with pytest.raises(ShapeError):
        check_shape("x", np.zeros(shape), wrong)
    with pytest.raises(ShapeError):
        check_shape("x", np.zeros(shape), (*shape, None))


def test_check_shape_says_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"^images has shape \(20, 784\), expected \(any, 64\)$"):
        check_shape("images", np.zeros((20, 784)), (None, 64))
    with pytest.raises(ShapeError, match=r"^bias has shape \(\), expected \(3,\)$"):
        check_shape("bias", 1.0, (3,))


# Numbers


@given(
    st.one_of(
        st.floats(min_value=0, exclude_min=True, allow_infinity=False), st.integers(1, 10**9), st.just(np.float32(0.5))
    )
)
def test_check_positive_returns_what_it_accepts(value: float) -> None:
    assert check_positive("dt", value) is value


@pytest.mark.parametrize("value", [0, -0.0, -1, np.nan, np.inf, -np.inf, "1", None, np.float32(0), [1.0]])
def test_check_positive_refuses(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^dt = .*, expected a finite number above 0$"):
        check_positive("dt", value)  # type: ignore[arg-type]


@given(hnp.arrays(np.float32, hnp.array_shapes(), elements=st.floats(-1e6, 1e6, width=32)))
def test_check_finite_accepts_finite_numbers(array: np.ndarray) -> None:
    check_finite("images", array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_first_place_and_counts(bad: float) -> None:
    images = np.zeros((4, 5))
    images[1, 3] = images[3, 0] = bad
    with pytest.raises(NotFiniteError, match=rf"^images\[1, 3\] = {bad}, expected finite numbers \(2 are not\)"):
        check_finite("images", images)
    with pytest.raises(NotFiniteError, match=rf"^beta = {bad}, expected finite"):
        check_finite("beta", bad)


def test_check_finite_takes_whole_numbers_and_nothing() -> None:
    check_finite("labels", np.arange(3))
    check_finite("labels", np.zeros((0, 4)))
