"""LPIPS against the lpips package, on random trunks."""

import copy
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics import EditView, Lpips
from p2p_bench.metrics.lpips import load_lpips
from p2p_bench.metrics.perceptual_trunk import CONFIG, WEIGHTS, PerceptualTrunk, perceptual_distance


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Random weights of torchvision's AlexNet in a file, and the lpips package on the same weights."""
    folder = tmp_path_factory.mktemp("trunk")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        features = torchvision.models.alexnet(weights=None).features
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, folder / "alexnet.pth")
    save_file(state, folder / "alexnet.safetensors")
    reference = load_lpips("alex", folder / "alexnet.pth")
    # Independent of our mapping of names: torchvision's own layers, cut where the package cuts them.
    cuts = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))
    for index, (start, stop) in enumerate(cuts, start=1):
        setattr(reference.net, f"slice{index}", features[start:stop])
    return folder, reference.eval()


@pytest.fixture
def views() -> list[EditView]:
    generator = torch.Generator().manual_seed(1)
    source, edited = torch.rand(2, 3, 64, 64, generator=generator)
    return [EditView(source, edited, "a", "b"), EditView(source, source, "a", "b")]


@pytest.mark.parametrize("name", ["alexnet.pth", "alexnet.safetensors"])
def test_published_trunk(alexnet: tuple[Path, nn.Module], views: list[EditView], name: str) -> None:
    folder, reference = alexnet
    metric = Lpips("alex", folder / name)
    metric.check()
    rows = metric(views)
    with torch.no_grad():
        expected = reference(views[0].source[None] * 2 - 1, views[0].edited[None] * 2 - 1)
    assert rows[0]["lpips"] == pytest.approx(expected.item(), rel=1e-5)
    assert rows[0]["lpips"] > 0
    assert rows[1]["lpips"] == 0
    assert (metric.columns[0].backbone, metric([])) == ("alex", [])


def test_linear_heads_are_the_published_ones(alexnet: tuple[Path, nn.Module]) -> None:
    heads = torch.load(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", "cpu", weights_only=True)
    assert torch.equal(alexnet[1].lin0.model[1].weight, heads["lin0.model.1.weight"])


def make_world_trunk(folder: Path) -> PerceptualTrunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        trunk = PerceptualTrunk((4, 6, 6, 6, 4))
    (folder / CONFIG).write_text('{"widths": [4, 6, 6, 6, 4]}')
    save_file(trunk.state_dict(), folder / WEIGHTS)
    return trunk.eval()


def test_world_trunk(tmp_path: Path, views: list[EditView]) -> None:
    trunk = make_world_trunk(tmp_path)
    metric = Lpips("world", tmp_path)
    metric.check()
    rows = metric(views)
    with torch.no_grad():
        expected = perceptual_distance(trunk, views[0].source[None], views[0].edited[None])
    assert rows[0]["lpips"] == pytest.approx(expected.item(), rel=1e-5)
    assert rows[1]["lpips"] == 0
    assert metric.columns[0].backbone == "world"


def test_world_distance_is_the_packages_baseline(
    tmp_path: Path, alexnet: tuple[Path, nn.Module], views: list[EditView]
) -> None:
    """The package without linear heads, its trunk and scaling replaced by the world's."""
    trunk = make_world_trunk(tmp_path)
    package = copy.deepcopy(alexnet[1])
    package.lpips, package.net, package.scaling_layer = False, trunk, nn.Identity()
    a, b = views[0].source[None], views[0].edited[None]
    with torch.no_grad():
        assert perceptual_distance(trunk, a, b).item() == pytest.approx(package(a, b).item(), rel=1e-5)


def test_absent_trunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        MissingWeightsError, match=r"checkpoints/squeezenet1_1-b8a52dc0\.pth is not there"
    ) as info:
        Lpips("squeeze").check()
    assert info.value.exit_code == 3
    with pytest.raises(MissingWeightsError, match=r"mine\.pth is not there"):
        Lpips("vgg", tmp_path / "mine.pth").check()
    with pytest.raises(MissingWeightsError, match="world weights 'lpips'"):
        Lpips("world", tmp_path).check()


def test_wrong_files_and_nets(tmp_path: Path) -> None:
    for name, state in (("other.pth", {"x": torch.zeros(1)}), ("code.pth", {"features.0.weight": print})):
        torch.save(state, tmp_path / name)
        with pytest.raises(MissingWeightsError, match=r"trunk 'alex'.*(missing|is not the state)"):
            load_lpips("alex", tmp_path / name)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(MissingWeightsError, match=r"empty\.pth is not the state"):
        load_lpips("alex", tmp_path / "empty.pth")
