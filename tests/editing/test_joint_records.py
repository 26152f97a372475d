"""What transformers record for heatmaps, and how many rows a request of a distilled model counts for."""

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.attention.recorder import Recorder
from p2p_bench.editing.budget import batches
from p2p_bench.editing.request import EditRequest, Target, prepare
from p2p_bench.prompts.words import columns_of, told_columns
from tests.examples import SOURCE, TARGET
from tests.models.small_flux import small_flux
from tests.models.small_sd3 import small_sd3_model
from tests.models.tiny import tiny_model


def test_padding_is_not_recorded_in_joint_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words' maps are those of a recorder of all columns; the others cost nothing."""
    model = small_sd3_model()
    kept: list[int] = []
    add = Recorder.add

    def counted(self: Recorder, site: object, maps: torch.Tensor, slots: torch.Tensor) -> None:
        kept.append(len(slots))
        add(self, site, maps, slots)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(Recorder, "add", counted)
    edits = [p2p.Replace(0.5, 0.5), p2p.Replace(1.0, 0.5)]
    done = p2p.edit(model, SOURCE, [TARGET] * 2, edits, steps=2, record=True)
    columns = told_columns(done.prompts[0])
    width = done.prompts[0].width
    assert 2 * len(columns) < width
    assert set(columns) >= set(columns_of(done.prompts[0], "circle"))
    # Source and one row until the edits part; then three rows, one of them of two terms.
    assert set(kept) == {2 * len(columns), 4 * len(columns)}
    few = done.maps
    monkeypatch.setattr("p2p_bench.editing.attention.told_columns", lambda prompt: tuple(range(width)))
    every = p2p.edit(model, SOURCE, [TARGET] * 2, edits, steps=2, record=True).maps
    padding = sorted(set(range(width)) - set(columns))
    for image in few:
        torch.testing.assert_close(few[image][list(columns)], every[image][list(columns)], rtol=0, atol=1e-6)
        assert not few[image][padding].any()
        assert every[image][padding].any()
    # A U-Net's columns are few, and add up to one: all are kept.
    assert torch.allclose(
        p2p.edit(tiny_model(), SOURCE, TARGET, steps=2, record=True).maps[0].sum(0), torch.ones(4, 4)
    )


@pytest.mark.parametrize(
    ("kind", "true_cfg", "passes"), [("dev", False, 1), ("schnell", False, 1), ("dev", True, 2)]
)
def test_a_distilled_model_counts_one_pass(kind: str, true_cfg: bool, passes: int) -> None:
    """As many edits at once as fit, whether from noise or from an image."""
    checkpoint = small_flux(kind, true_cfg)
    spec, reader = checkpoint.spec(), checkpoint.reader()
    image = torch.rand(3, *spec.image_size)
    for given in ({}, {"image": image, "inversion": p2p.FlowODEInversion()}):
        targets = tuple(Target(TARGET, p2p.Replace(tau)) for tau in (0.2, 0.6, 1.0))
        request = EditRequest("x", SOURCE, targets, guidance=None if kind == "dev" else 1.0, **given)
        prepared = prepare(reader, spec, request, 4)
        guided = passes if given or prepared.guidance != 1 else 1
        (batch,) = batches([(0, prepared)], 4, 4)
        assert batch.rows == 4
        assert len(batch.chunks) == (1 if guided == 1 else 3)
