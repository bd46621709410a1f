"""The ready spaces as NNI ModelSpaces, with NNI and without."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from nni_aiop.errors import MissingPackageError
from nni_aiop.search_spaces import multi_resolution, naap, nasbench101, nasbench201
from nni_aiop.search_spaces.transnas101 import macro, micro

CLASSES = [
    (multi_resolution, "MultiResolutionSpace", "MultiResolutionNet"),
    (naap, "NAAPSpace", "NAAPNet"),
    (nasbench101, "NASBench101Space", "NASBench101Net"),
    (nasbench201, "NASBench201Space", "NASBench201Net"),
    (macro, "TransNASMacroSpace", "TransNASMacroNet"),
    (micro, "TransNASMicroSpace", "TransNASMicroNet"),
]


def installed() -> bool:
    try:
        return multi_resolution.MultiResolutionSpace is not None
    except MissingPackageError:
        return False


needs_nni = pytest.mark.skipif(not installed(), reason="NNI is not installed")


@needs_nni
@pytest.mark.parametrize(("module", "space", "net"), CLASSES)
def test_labels_and_values_are_those_of_the_code_space(module: Any, space: str, net: str) -> None:
    model_space = getattr(module, space)()
    simplified = model_space.simplify()
    codes = module.code_space()
    assert tuple(simplified) == codes.labels
    for dimension in codes.dimensions:
        assert list(simplified[dimension.label].values) == list(dimension.values)
    own = model_space.code_space()
    assert own.fingerprint == codes.fingerprint and own.features is codes.features


@needs_nni
@pytest.mark.parametrize(("module", "space", "net"), CLASSES)
def test_freezing_a_sample_gives_its_network(module: Any, space: str, net: str) -> None:
    model_space = getattr(module, space)()
    codes = model_space.code_space()
    for sample in codes.sample(3, np.random.default_rng(0)):
        with torch.device("meta"):
            frozen = model_space.freeze(sample)
        assert type(frozen) is getattr(module, net)
        n_params = sum(p.numel() for p in frozen.parameters())
        assert n_params == round(codes.cost("params", codes.encode([sample]))[0])
    label = list(codes.canonical(sample))[-1]
    del sample[label]
    with pytest.raises(Exception, match=label):
        model_space.freeze(sample)


@needs_nni
def test_arguments_reach_the_networks_and_the_costs() -> None:
    space = multi_resolution.MultiResolutionSpace(head="segmentation", n_classes=19, input_size=64)
    images = torch.zeros(1, 3, 64, 64)
    assert space(images).shape == (1, 19, 64, 64)
    sample = space.code_space().sample(1, np.random.default_rng(0))[0]
    with torch.device("meta"):
        assert space.freeze(sample)(images.to("meta")).shape == (1, 19, 64, 64)
    assert space.trace_kwargs == {"head": "segmentation", "n_classes": 19, "input_size": 64}
    cells = nasbench201.NASBench201Space("cifar10")
    assert cells(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    skeletons = macro.TransNASMacroSpace("jigsaw")
    assert skeletons(torch.zeros(1, 9, 3, 64, 64)).shape == (1, 1000)


@needs_nni
@pytest.mark.parametrize(
    ("module", "space"), [(macro, "TransNASMacroSpace"), (nasbench101, "NASBench101Space")]
)
def test_rules_hold_in_nni_as_well(module: Any, space: str) -> None:
    model_space, codes = getattr(module, space)(), module.code_space()
    points = codes.sample_points(200, np.random.default_rng(0))
    valid = [codes.violation(sample) is None for sample in codes.from_points(points)]
    assert [model_space.contains(sample) for sample in codes.from_points(points)] == valid
    assert 0 < sum(valid) < len(valid)
    (sample,) = codes.sample(1, np.random.default_rng(0))
    assert model_space.contains(codes.canonical(sample) | {"label of an evaluator": 1})


WITHOUT = """
import sys
sys.modules["nni"] = None
from nni_aiop.errors import MissingPackageError
from nni_aiop.search_spaces import multi_resolution, naap, nasbench101, nasbench201
from nni_aiop.search_spaces.transnas101 import macro, micro
for module, name in (
    (multi_resolution, "MultiResolutionSpace"), (naap, "NAAPSpace"),
    (nasbench101, "NASBench101Space"),
    (nasbench201, "NASBench201Space"), (macro, "TransNASMacroSpace"), (micro, "TransNASMicroSpace"),
):
    module.code_space()
    try:
        getattr(module, name)
    except MissingPackageError as err:
        assert "pip install 'nni-aiop[nni]'" in str(err), err
    else:
        raise SystemExit(f"{name} is there without NNI")
"""

QUIET = """
import sys
from nni_aiop.search_spaces import SPACES, get_space
for name in SPACES:
    get_space(name)
loaded = {"torch", "nni", "optuna", "pandas"} & set(sys.modules)
raise SystemExit(f"{loaded} were imported" if loaded else 0)
"""


@pytest.mark.parametrize("script", [WITHOUT, QUIET], ids=["without-nni", "quiet"])
def test_in_a_fresh_interpreter(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [module for module, _, _ in CLASSES])
def test_unknown_attributes_are_attribute_errors(module: Any) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = module.nonsense
    assert all(hasattr(module, name) for name in module.__all__)


@needs_nni
@pytest.mark.parametrize(("module", "space", "net"), CLASSES)
def test_what_an_evaluator_trains_is_the_network_of_the_sample(
    module: Any, space: str, net: str
) -> None:
    from nni_aiop.engines._nni import importing_nni

    with importing_nni():
        from nni.nas.evaluator import FunctionalEvaluator
        from nni.nas.space import SimplifiedModelSpace

    model_space = getattr(module, space)()
    codes = model_space.code_space()
    (sample,) = codes.sample(1, np.random.default_rng(3))
    model = SimplifiedModelSpace.from_model(model_space, FunctionalEvaluator(print)).freeze(sample)
    with torch.device("meta"):
        network = model.executable_model()
    assert type(network) is getattr(module, net)
    n_params = sum(p.numel() for p in network.parameters())
    assert n_params == round(codes.cost("params", codes.encode([sample]))[0])
