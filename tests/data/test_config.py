"""The YAML of the dataset group: each names a data set whose pairs can be loaded, and a limit."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class, instantiate

from p2p_bench.data import PairDataset
from p2p_bench.errors import P2PError
from p2p_bench.resources import resource_path

SIZE = (64, 64)
FILES = sorted(resource_path("conf", "dataset").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_option_makes_a_dataset(path: Path, tmp_path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    assert node.get("limit", 0) is None, "a data set has a limit, and its YAML `limit: null`"
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    inspect.signature(get_class(node["_target_"])).bind(**arguments)
    asked = {key: str(tmp_path / "nowhere") for key, value in node.items() if value == "???"}
    dataset = instantiate({**node, **asked, "limit": 1}, _convert_="all")
    assert isinstance(dataset, PairDataset)
    assert dataset.name
    if asked:  # only a user has its files; without them it says which it wants
        with pytest.raises(P2PError, match="nowhere"):
            dataset.pairs()
        return
    (pair,) = dataset.pairs()
    pixels = dataset.load(pair, SIZE)
    assert pair.has_image == (pixels.image is not None)
    for picture in (pixels.image, pixels.mask, pixels.answer):
        assert picture is None or picture.shape[-2:] == SIZE
