"""The network as a torch module: it converges where the solvers converge, its gradients are those
of the equilibrium, and it can be exported.
"""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import oracles
import pytest
from problems import NAMES, problem, random_problem

import fsp_dynamics as fsp
from fsp_dynamics.analysis.gradients import true_gradient
from fsp_dynamics.errors import ConfigurationError, NotConvergedError, ShapeError
from fsp_dynamics.models.activations import ACTIVATIONS, Activation

torch = pytest.importorskip("torch", reason="torch is not installed; it comes with the [torch] extra")
from fsp_dynamics.torch_backend import passes as torch_passes
from fsp_dynamics.torch_backend.module import RateModule, parameter_name
from fsp_dynamics.torch_backend.units import newton_step

CLOSE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
OSCILLATING = ("ring-3", "ring-4")  # whole passes do not contract


def images_of(p):
    return torch.from_numpy(p.images)


def apart(states, known):
    return max(float(np.abs(s.detach().numpy() - k).max()) for s, k in zip(states, known, strict=True))


# Where it converges


@pytest.mark.parametrize("name", NAMES)
def test_it_converges_where_the_solvers_do(name, dtype):
    p = problem(name, dtype)
    # an error may be a little larger than the residual
    tolerance = 5e-6 if np.dtype(dtype) == np.float32 else 1e-12
    module = p.network.to_torch(tolerance=tolerance)
    solved = fsp.relax(p.network, p.images, tolerance=fsp.Tolerance(tolerance))
    rest = module.equilibrium(images_of(p))
    assert rest.converged.all()
    assert apart(rest.state, p.known["free"]) < CLOSE[np.dtype(dtype)]
    assert apart(rest.state, solved.state) < CLOSE[np.dtype(dtype)]
    assert apart(module.rates(images_of(p)), [p.network.rho.rate(s) for s in solved.state]) < CLOSE[np.dtype(dtype)]
    assert torch.equal(module(images_of(p)), module.rates(images_of(p))[-1])


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_known_equilibrium_of_random_networks(seed):
    p = random_problem(seed)
    assert apart(p.network.to_torch().equilibrium(images_of(p)).state, p.known["free"]) < 1e-11


@pytest.mark.parametrize("rho", ACTIVATIONS)
def test_strong_wide_loops_converge_too(rho):
    network = fsp.loop_network([64, 60, 50, 10], rho=rho, loop_scale=2.0, dtype=np.float64, rng=0)
    images = np.random.default_rng(0).random((30, 64))
    assert fsp.loop_gain(network) > 5
    assert (
        apart(
            network.to_torch().equilibrium(torch.from_numpy(images)).state,
            fsp.relax(network, images).require_converged().state,
        )
        < 1e-10
    )


def test_the_tolerance_is_kept_and_is_a_norm_of_the_field():
    p = problem("strong")
    loose, tight = (p.network.to_torch(tolerance=tolerance).equilibrium(images_of(p)) for tolerance in (1e-2, 1e-9))
    for rest, tolerance in ((loose, 1e-2), (tight, 1e-9)):
        state = tuple(s.numpy() for s in rest.state)
        field = fsp.models.rate.rate_field(p.network, p.drive, state)
        measured = np.linalg.norm(np.concatenate(field, axis=1), axis=1)
        assert np.allclose(rest.residual, measured, atol=1e-14)
        assert (measured <= tolerance).all()
    assert (loose.residual > 1e-9).any()
    assert (loose.passes < tight.passes).any()


def test_a_converged_sample_is_left_alone(monkeypatch):
    """One unit a layer that inhibits itself: an empty image needs one pass, and the other alone
    has more.
    """
    seen, one_pass = [], torch_passes.one_pass
    monkeypatch.setattr(torch_passes, "one_pass", lambda *given: seen.append(len(given[2])) or one_pass(*given))
    one, nothing = np.ones((1, 1)), np.zeros(1)
    network = fsp.Network(input=one, forward=(one,), loop=-0.5 * one, biases=(nothing, nothing))
    rest = network.to_torch().equilibrium(torch.tensor([[0.9], [0.0], [0.0]], dtype=torch.float64))
    assert rest.converged.all()
    assert (rest.state[-1][:, 0] - torch.tensor([0.6, 0.0, 0.0])).abs().max() < 1e-7
    assert rest.passes.tolist() == [len(seen), 1, 1]
    assert seen == [3, *[1] * (len(seen) - 1)]
    assert len(seen) > 2


def test_a_sample_does_not_depend_on_its_neighbours():
    p = problem("strong")
    together = p.network.to_torch()(images_of(p)).detach()
    alone = torch.cat([p.network.to_torch()(image[None]) for image in images_of(p)]).detach()
    assert (together - alone).abs().max() < 1e-13
    broken = images_of(p).clone()
    broken[1, 0] = torch.nan
    rest = p.network.to_torch().equilibrium(broken)
    assert rest.converged.tolist() == [True, False, True, True]
    assert (rest.state[-1][[0, 2, 3]] - together[[0, 2, 3]]).abs().max() < 1e-13


def test_samples_that_passes_do_not_bring_to_convergence_are_followed_through_time():
    p = problem("strong")
    rest = p.network.to_torch(max_passes=1, tolerance=1e-2).equilibrium(images_of(p))
    state = [np.zeros((1, n)) for n in p.network.sizes[1:]]
    # the first was mixed, and the last found that it has converged
    for _ in range(int(rest.passes[0]) - 2):
        state = [s + 0.5 * f for s, f in zip(state, oracles.rate_field(p.network, p.images[:1], state), strict=True)]
    assert rest.converged.all()
    assert (rest.passes > 2).all()
    assert (rest.passes <= 21).all()
    assert apart(rest.state, p.known["free"]) < 3e-2
    assert apart([s[:1] for s in rest.state], state) < 1e-14


def test_samples_that_do_not_converge_are_refused_or_returned():
    p = problem("strong")
    settings = {"max_passes": 1, "tolerance": 1e-13}
    with pytest.raises(
        NotConvergedError, match=r"^4 of 4 samples .* sample 0, residual .* after 21 passes\); allow more max_passes"
    ) as caught:
        p.network.to_torch(**settings)(images_of(p))
    assert not caught.value.equilibrium.converged.any()
    reached = p.network.to_torch(**settings, require_converged=False)(images_of(p)).detach()
    assert torch.equal(reached, caught.value.equilibrium.state[-1])
    assert 0 < apart([reached], p.known["free"][-1:]) < 1e-2


@pytest.mark.parametrize("rho", ["logistic", "shifted_tanh"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_steps_lead_a_smooth_unit_to_its_root_however_large_its_input_is(rho, kind):
    rho, c = (
        ACTIVATIONS[rho],
        torch.tensor([[0.0, *(sign * 10.0**e for e in range(-6, 7) for sign in (1, -1))]], dtype=kind),
    )
    x = None
    for _ in range(50):
        x = newton_step(rho, c, x)
    assert (x > 0).all()
    assert torch.allclose(x, rho.slope(c * x), rtol=200 * torch.finfo(kind).eps, atol=0)


@pytest.mark.parametrize("passes", [None, 60])
@pytest.mark.parametrize("rho", ["logistic", "shifted_tanh"])
def test_smooth_networks_with_large_inputs_converge_too(rho, passes):
    """Inputs of thousands, a hundred times what trained networks have."""
    network = fsp.loop_network([8, 6, 5, 3], rho=rho, loop_scale=0.3, dtype=np.float64, rng=0)
    network = network.with_parameters({"input": 5000 * network.input})
    images = np.random.default_rng(0).random((20, 8))
    drive = fsp.models.rate.drive(network, images)
    assert 6000 < np.abs(drive).max() < 7000
    rest = network.to_torch(passes).equilibrium(torch.from_numpy(images))
    assert rest.converged.all()
    assert apart(rest.state, fsp.relax(network, images).require_converged().state) < 1e-10


@pytest.mark.parametrize("worth", [np.nan, np.inf])
@pytest.mark.parametrize("passes", [None, 3])
@pytest.mark.parametrize("name", ["strong", "logistic", "tied"])
def test_no_rates_are_made_up_for_images_that_are_not_finite(name, passes, worth):
    p = problem(name)
    module, broken = p.network.to_torch(passes, require_converged=False), images_of(p).clone()
    broken[1, 0] = worth
    assert all(r[1].isnan().all() for r in module.rates(broken))
    assert (module(broken)[0] - module(images_of(p))[0]).abs().max() < 1e-13
    rest = module.equilibrium(broken)
    assert all(s[1].isnan().all() for s in rest.state)
    assert not rest.converged[1]
    if passes is None:
        module(broken).sum().backward()
        assert module.input.grad.isnan().any()
        with pytest.raises(
            NotConvergedError,
            match=r"^1 of \d+ samples .* sample 1, residual (nan|inf) .*; look for NaN or infinity in its images",
        ):
            p.network.to_torch()(broken)


# A given number of passes


def swept(p, passes, damping):
    """Layer sweeps of a loop with a hard sigmoid, written out."""
    network, y = p.network, np.zeros((p.batch, p.network.sizes[-1]))
    for _ in range(passes):
        state = [np.clip(network.time_constants[0] * (p.drive + y @ network.loop), 0, 1)]
        for k, weight in enumerate(network.forward):
            state.append(np.clip(network.time_constants[k + 1] * (state[-1] @ weight + network.biases[k + 1]), 0, 1))
        y = y + damping * (state.pop() - y)
    return [*state, y]


@pytest.mark.parametrize("name", ["strong", "time-constants", "ring-3", "one-hidden"])
@pytest.mark.parametrize(("passes", "damping"), [(1, 1.0), (3, 1.0), (4, 0.3)])
def test_passes_are_as_many_as_were_asked_for(name, passes, damping):
    p = problem(name)
    assert apart(p.network.to_torch(passes, damping=damping).rates(images_of(p)), swept(p, passes, damping)) < 1e-14


@pytest.mark.parametrize("name", NAMES)
def test_many_passes_reach_the_same_equilibrium(name):
    p = problem(name)
    module = p.network.to_torch(passes=200, damping=0.3 if name in OSCILLATING else 1.0)
    rest = module.equilibrium(images_of(p))
    assert apart(rest.state, p.known["free"]) < 1e-11
    assert rest.converged.all()
    assert (rest.passes == 200).all()


def test_whole_passes_of_a_strongly_inhibiting_loop_oscillate():
    p = problem("ring-3")
    assert apart(p.network.to_torch(passes=200).rates(images_of(p)), p.known["free"]) > 0.1
    assert not p.network.to_torch(passes=200).equilibrium(images_of(p)).converged.all()


# Gradients


def cost_gradient(p, module):
    """-dC/dW of C = mean 1/2 ||s_L - d||^2 by torch, named as in the network; s_L from the rates
    by the inverse of rho.
    """
    target = torch.from_numpy(p.nudges["nudged"].target)
    inverse = {"logistic": torch.logit, "shifted_tanh": lambda r: torch.atanh(2 * r - 1)}.get(
        p.network.rho.name, lambda r: r
    )
    module.zero_grad()
    (0.5 * (inverse(module(images_of(p))) - target) ** 2).sum(1).mean().backward()
    return {name: -getattr(module, parameter_name(name)).grad.numpy() for name in p.network.parameters()}


@pytest.mark.parametrize("way", ["converged", "unrolled"])
# all units of `silent` are at their kink
@pytest.mark.parametrize("name", [n for n in NAMES if n != "silent"])
def test_the_gradient_of_the_cost_is_the_true_one(name, way):
    p = problem(name)
    damping = 0.3 if name in OSCILLATING else 1.0
    module = p.network.to_torch() if way == "converged" else p.network.to_torch(passes=200, damping=damping)
    expected = true_gradient(
        p.network, p.images, p.nudges["nudged"].target, fsp.relax(p.network, p.images)
    ).parameters()
    found = cost_gradient(p, module)
    for key, gradient in expected.items():
        assert np.abs(found[key] - gradient).max() < 1e-10, key


@pytest.mark.parametrize("name", ["strong", "time-constants", "tied", "untied", "logistic"])
def test_the_gradient_of_all_rates_is_that_of_finite_differences(name):
    p = problem(name)
    module = p.network.to_torch()
    names = [key for key, _ in module.named_parameters()]

    class All(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, images):
            return torch.cat(self.inner.rates(images), 1)

    def rates(images, *weights):
        named = {f"inner.{key}": weight for key, weight in zip(names, weights, strict=True)}
        return torch.func.functional_call(All(), named, (images,))

    given = [w.detach().clone().requires_grad_() for w in (images_of(p)[:2], *module.parameters())]
    assert torch.autograd.gradcheck(rates, given, eps=1e-5, atol=1e-7)


@pytest.mark.parametrize("passes", [None, 3])
@pytest.mark.parametrize("rho", ["logistic", "shifted_tanh"])
def test_smooth_units_at_zero_have_a_gradient(rho, passes):
    """There torch takes the derivative of |s| for 0. With all weights 0, d rate / d bias =
    rho'(0)^2.
    """
    network = fsp.loop_network([2, 2, 2], rho=rho, dtype=np.float64, rng=0)
    module = network.with_parameters({key: np.zeros_like(w) for key, w in network.parameters().items()}).to_torch(
        passes
    )
    module(torch.zeros((1, 2), dtype=torch.float64)).sum().backward()
    assert np.allclose(module.biases_1.grad, ACTIVATIONS[rho].slope(0.0) ** 2)


def test_gradients_of_float32_are_near():
    p, exact = problem("strong", np.float32), problem("strong", np.float64)
    found, expected = cost_gradient(p, p.network.to_torch()), cost_gradient(exact, exact.network.to_torch())
    for key, gradient in expected.items():
        assert np.abs(found[key] - gradient).max() < 1e-5, key


@pytest.mark.parametrize("name", ["strong", "tied", "logistic"])
@pytest.mark.parametrize("wanted", ["images", "input", "biases_1", "all"])
def test_second_derivatives_are_refused_even_of_what_is_linear_in_the_rates(name, wanted):
    p = problem(name)
    module, x = p.network.to_torch(), images_of(p).requires_grad_()
    (slope,) = torch.autograd.grad(module(x)[:, 0].sum(), x, create_graph=True)
    leaves = [x, *module.parameters()] if wanted == "all" else [x if wanted == "images" else getattr(module, wanted)]
    with pytest.raises(
        ConfigurationError,
        match=r"^to_torch\(\) without passes has first derivatives only; give passes=K for higher ones$",
    ):
        (slope**2).sum().backward(inputs=leaves)


def test_second_derivatives_that_torch_would_fill_with_zeros_are_refused():
    """These take the derivative of a gradient by what the gradient was weighted with."""
    p = problem("logistic")
    with pytest.raises(ConfigurationError, match="first derivatives only"):
        torch.autograd.functional.jvp(p.network.to_torch(), images_of(p), images_of(p))
    with pytest.raises(ConfigurationError, match="first derivatives only"):
        torch.autograd.functional.hessian(lambda x: p.network.to_torch()(x)[:, 0].sum(), images_of(p))


def test_given_passes_have_second_derivatives():
    p = problem("logistic")
    assert torch.autograd.gradgradcheck(p.network.to_torch(passes=3), images_of(p)[:2].requires_grad_())


@pytest.mark.parametrize("way", [{}, {"retain_graph": True}, {"create_graph": True}])
def test_first_derivatives_do_not_depend_on_what_is_kept(way):
    p = problem("tied")
    module, x = p.network.to_torch(), images_of(p).requires_grad_()
    wanted, rates = [x, *module.parameters()], module(x)
    expected = torch.autograd.grad(module(x).sum(), wanted)
    assert all(
        torch.equal(g, e) for g, e in zip(torch.autograd.grad(rates.sum(), wanted, **way), expected, strict=True)
    )
    if way:
        assert all(torch.equal(g, e) for g, e in zip(torch.autograd.grad(rates.sum(), wanted), expected, strict=True))


@pytest.mark.parametrize(
    ("name", "changed"), [("strong", "forward_0"), ("strong", "loop"), ("tied", "forward_1"), ("untied", "backward_0")]
)
def test_weights_changed_before_the_gradient_are_refused(name, changed):
    p = problem(name)
    module = p.network.to_torch()
    cost = module(images_of(p)).sum()
    with torch.no_grad():
        getattr(module, changed).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.backward()


def test_weights_that_the_gradient_does_not_need_may_change():
    p = problem("strong")
    module, expected = p.network.to_torch(), p.network.to_torch()
    expected(images_of(p)).sum().backward()
    cost = module(images_of(p)).sum()
    with torch.no_grad():
        module.biases_1.add_(1)
        module.input.mul_(2)
    cost.backward()
    assert torch.equal(module.loop.grad, expected.loop.grad)


def test_torch_makes_the_jacobian():
    p = problem("strong")
    module = p.network.to_torch()
    found = torch.autograd.functional.jacobian(module, images_of(p))
    x = images_of(p).requires_grad_()
    (row,) = torch.autograd.grad(module(x)[2, 1], x)
    assert torch.allclose(found[2, 1], row, atol=1e-14)


@pytest.mark.parametrize("passes", [None, 3])
@pytest.mark.parametrize("name", ["strong", "tied", "logistic"])
def test_autocast_changes_nothing(name, passes):
    p = problem(name, np.float32)
    module = p.network.to_torch(passes)
    expected = module(images_of(p))
    expected.sum().backward()
    gradients = [w.grad.clone() for w in module.parameters()]
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rates, rest = module(images_of(p)), module.equilibrium(images_of(p))
    assert torch.equal(rates, expected)
    assert torch.equal(p.network.rho.rate(rest.state[-1]), expected)
    rates.sum().backward()
    assert all(torch.equal(w.grad, g) for w, g in zip(module.parameters(), gradients, strict=True))
    if passes is None:
        module.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(images_of(p)).sum().backward()
        biases = {
            key: g for (key, _), g in zip(module.named_parameters(), gradients, strict=True) if key.startswith("biases")
        }
        assert all(torch.equal(getattr(module, key).grad, g) for key, g in biases.items()), (
            "the adjoint has no product of less precision"
        )


def test_a_module_learns_by_an_optimiser_of_torch():
    data = fsp.load_dataset("digits").train.limit(200)
    module = fsp.loop_network([64, 30, 10], loop_scale=0.2, rng=0).to_torch()
    images, targets = torch.from_numpy(data.images), torch.from_numpy(data.one_hot(10).astype(np.float32))
    optimiser, costs = torch.optim.Adam(module.parameters(), lr=0.01), []
    for _ in range(30):
        optimiser.zero_grad()
        costs.append(((module(images) - targets) ** 2).sum(1).mean())
        costs[-1].backward()
        optimiser.step()
    assert costs[-1] < 0.3 * costs[0]


# Parameters


@pytest.mark.parametrize("name", ["strong", "time-constants", "tied", "untied", "logistic"])
def test_to_torch_and_back_is_exact(name, dtype):
    network = problem(name, dtype).network
    again = network.to_torch().to_network()
    assert again.parameters().keys() == network.parameters().keys()
    for key, weight in network.parameters().items():
        assert np.array_equal(again.parameters()[key], weight)
        assert again.parameters()[key].dtype == dtype
    assert (again.tied, again.time_constants, again.rho) == (network.tied, network.time_constants, network.rho)


def test_names_of_parameters_stay_as_they_are():
    chain = ["input", "forward_0", "forward_1"]
    biases = ["biases_0", "biases_1", "biases_2"]
    assert list(problem("strong").network.to_torch().state_dict()) == [*chain, "loop", *biases]
    assert list(problem("tied").network.to_torch().state_dict()) == [*chain, *biases]
    assert list(problem("untied").network.to_torch().state_dict()) == [*chain, "backward_0", "backward_1", *biases]
    assert [parameter_name(key) for key in problem("untied").network.parameters()] == list(
        problem("untied").network.to_torch().state_dict()
    )


def test_the_module_has_weights_of_its_own():
    network = problem("strong").network
    before = network.loop.copy()
    module = network.to_torch()
    with torch.no_grad():
        module.loop += 1
    assert np.array_equal(network.loop, before)
    back = module.to_network()
    with torch.no_grad():
        module.loop += 1
    assert np.array_equal(back.loop, before + 1)


def test_a_state_dict_can_be_loaded():
    p, other = problem("strong"), fsp.loop_network([4, 10, 8, 3], dtype=np.float64, rng=1)
    module = other.to_torch()
    file = io.BytesIO()
    torch.save(p.network.to_torch().state_dict(), file)
    file.seek(0)
    module.load_state_dict(torch.load(file))
    assert apart([module(images_of(p))], p.known["free"][-1:]) < 1e-11
    with pytest.raises(RuntimeError, match="loop"):
        module.load_state_dict(fsp.reciprocal_network([4, 10, 8, 3], dtype=np.float64, rng=0).to_torch().state_dict())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_whole(way):
    p = problem("strong")
    module = p.network.to_torch()
    module(images_of(p)).sum().backward()
    assert torch.equal(way(module)(images_of(p)), module(images_of(p)))


def test_precision_and_device_follow_torch():
    p = problem("strong", np.float32)
    module = p.network.to_torch().double().to("cpu")
    assert module(images_of(p)).dtype == torch.float64
    assert module.to_network().dtype == np.float64
    assert apart([module(images_of(p))], p.known["free"][-1:]) < 1e-11
    with pytest.raises(ConfigurationError, match=r"bfloat16, expected float32 or float64; call \.float\(\)"):
        module.bfloat16().to_network()


def test_its_repr():
    assert "4-10-8-3, hard_sigmoid, tolerance=None, max_passes=200" in repr(problem("strong").network.to_torch())
    assert "passes=8, damping=0.5" in repr(problem("strong").network.to_torch(8, damping=0.5))


# Refusals


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"passes": 0}, "passes = 0, expected a whole number"),
        ({"passes": 1.5}, "passes = 1.5, expected"),
        ({"passes": True}, "passes = True, expected a whole number"),
        ({"max_passes": 0}, "max_passes = 0, expected"),
        ({"max_passes": True}, "max_passes = True, expected a whole number"),
        ({"tolerance": 0.0}, "tolerance = 0.0, expected a finite number above 0"),
        ({"damping": 0.5}, "damping = 0.5 with passes = None"),
        ({"passes": 3, "damping": 1.5}, "damping = 1.5 with passes = 3"),
        ({"passes": 3, "max_passes": 5}, "passes = 3 makes exactly so many; leave max_passes = 5 out"),
    ],
)
def test_options_that_do_not_fit_are_refused(settings, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        problem("strong").network.to_torch(**settings)


def test_a_smooth_rate_without_curvature_is_refused():
    rho = Activation("bare", ACTIVATIONS["logistic"].rate, ACTIVATIONS["logistic"].slope)
    with pytest.raises(ConfigurationError, match=r"rho = 'bare' has no curvature.*curvature=\.\.\."):
        fsp.loop_network([2, 2, 2], rho=rho).to_torch()


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 2, 4)])
def test_images_of_another_shape_are_refused(shape):
    for passes in (None, 2):
        with pytest.raises(ShapeError, match=r"images has shape .*, expected \(any, 4\)"):
            problem("strong").network.to_torch(passes)(torch.zeros(shape))


@pytest.mark.parametrize("images", [np.zeros((2, 4)), [[0.0] * 4]])
@pytest.mark.parametrize("verb", ["forward", "rates", "equilibrium"])
def test_images_that_are_no_tensor_are_refused(verb, images):
    with pytest.raises(
        ConfigurationError,
        match=rf"^images = {type(images).__name__}, expected a tensor; make one with torch.as_tensor$",
    ):
        getattr(problem("strong").network.to_torch(), verb)(images)


@pytest.mark.parametrize("passes", [None, 2])
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("verb", ["forward", "equilibrium"])
def test_coarse_parameters_are_refused(verb, kind, passes):
    p = problem("strong")
    module = p.network.to_torch(passes).to(getattr(torch, kind))
    with pytest.raises(
        ConfigurationError,
        match=rf"^the parameters are torch\.{kind}, expected float32 or float64; call \.float\(\) or "
        r"\.double\(\) first$",
    ):
        getattr(module, verb)(images_of(p))
    assert module.double()(images_of(p).bfloat16()).dtype == torch.float64, "images may be of any precision"


# Export


@pytest.mark.parametrize("kind", [fsp.loop_network, fsp.reciprocal_network])
def test_torch_export_gives_the_same_bits(kind):
    module = kind([6, 5, 4, 3], rng=0).to_torch(passes=4)
    program = torch.export.export(module, (torch.rand(2, 6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    images = torch.rand(7, 6)
    assert torch.equal(program.module()(images), module(images))


@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*LeafSpec.*:DeprecationWarning"
)  # torch's own
def test_onnx_has_the_network_for_any_batch():
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = fsp.loop_network([64, 20, 10], loop_scale=0.2, rng=0)
    module = network.to_torch(passes=8).eval()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        batch = {0: torch.export.Dim("batch")}
        exported = torch.onnx.export(
            module,
            (torch.rand(2, 64),),
            dynamo=True,
            dynamic_shapes=(batch,),
            input_names=["images"],
            output_names=["rates"],
            verbose=False,
        )
    assert [str(w.message) for w in seen if "LeafSpec" not in str(w.message)] == []
    onnx.checker.check_model(exported.model_proto, full_check=True)
    session = runtime.InferenceSession(exported.model_proto.SerializeToString())
    for count in (1, 3, 17):
        images = np.random.default_rng(count).random((count, 64), np.float32)
        (rates,) = session.run(None, {"images": images})
        assert rates.shape == (count, 10)
        assert np.abs(rates - module(torch.from_numpy(images)).detach().numpy()).max() < 1e-6
        assert np.abs(rates - fsp.relax(network, images).output).max() < 1e-5


def test_the_class_is_what_to_torch_returns():
    assert isinstance(problem("strong").network.to_torch(), RateModule)
