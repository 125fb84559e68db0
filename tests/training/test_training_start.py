"""What a training starts from."""

import logging
from pathlib import Path

import pytest
import torch
from clips_made import TINY
from rule_made import official_state

from htsat_sed.errors import CheckpointError
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.start import from_timm, start_model


def test_start_from_another_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = HTSATConfig(classes=3, **vars(TINY))
    old = HTSAT(config, ("a", "b", "c"))
    old.post_processing = {"threshold": 0.3}
    save_checkpoint(tmp_path / "old.safetensors", old)
    start = str(tmp_path / "old.safetensors")
    new = start_model(HTSATConfig(classes=2), ("c", "x"), start)
    assert new.config.embed_dim == 16
    assert torch.equal(new.backbone.norm.weight, old.backbone.norm.weight)
    assert new.tscam_conv.weight.shape[0] == 2
    assert "newly initialised: tscam_conv.weight, tscam_conv.bias" in caplog.text
    assert new.post_processing is None
    part = start_model(HTSATConfig(classes=2), ("c", "a"), start)
    assert torch.equal(part.tscam_conv.weight, old.tscam_conv.weight[[2, 0]])
    assert part.post_processing == {"threshold": 0.3}
    assert "newly initialised: none" in caplog.text
    with pytest.raises(CheckpointError):
        start_model(config, ("a", "b", "c"), str(tmp_path / "none.safetensors"))


def test_a_new_head_begins_at_the_presence_bias(tmp_path: Path) -> None:
    old = HTSAT(HTSATConfig(classes=2, **vars(TINY)), ("a", "b"))
    save_checkpoint(tmp_path / "old.safetensors", old)
    for start in ("", str(tmp_path / "old.safetensors")):
        model = start_model(HTSATConfig(classes=2, **vars(TINY)), ("a", "c"), start, presence_bias=-3.0)
        assert model.tscam_conv.bias is not None
        assert model.tscam_conv.bias.tolist() == [-3.0, -3.0]
    kept = start_model(HTSATConfig(classes=1), ("b",), str(tmp_path / "old.safetensors"), presence_bias=-3.0)
    torch.testing.assert_close(kept.tscam_conv.bias, old.tscam_conv.bias[1:])


def test_start_from_clap(tmp_path: Path) -> None:
    """The encoder of an HTS-AT that is part of another model, whose head is not ours."""
    state = official_state(HTSATConfig(classes=1, **vars(TINY)), seed=1)
    renamed = {key.replace("sed_model.", "module.audio_branch."): array for key, array in state.items()}
    torch.save({"state_dict": renamed}, tmp_path / "clap.pt")
    model = start_model(HTSATConfig(classes=2), ("a", "b"), str(tmp_path / "clap.pt"))
    assert model.config.embed_dim == 16
    assert torch.equal(model.backbone.norm.weight, renamed["module.audio_branch.norm.weight"])


def test_start_from_timm() -> None:
    """A Swin of timm's on our image gives our tokens: same order of merging, same blocks."""
    timm = pytest.importorskip("timm")
    sizes = {
        "img_size": 256,
        "window_size": 8,
        "embed_dim": 16,
        "depths": (2, 2, 2, 2),
        "num_heads": (1, 2, 2, 4),
    }
    swin = timm.models.swin_transformer.SwinTransformer(in_chans=3, num_classes=0, **sizes).eval()
    for parameter in swin.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    encoder = from_timm(swin.state_dict(), "swin")
    assert (encoder.embed_dim, encoder.depths, encoder.heads) == (16, (2, 2, 2, 2), (1, 2, 2, 4))
    model = HTSAT(HTSATConfig(classes=1, embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4))).eval()
    missing = model.load_state_dict(encoder.arrays, strict=False).missing_keys
    assert all(name.startswith(("bn0.", "tscam_conv.")) for name in missing)
    image = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        third = image.expand(-1, 3, -1, -1) / 3.0  # the patches' weights are the mean over the channels
        wanted = swin.forward_features(third).flatten(1, 2)
        torch.testing.assert_close(model.backbone(image), wanted, rtol=1e-4, atol=1e-4)


def test_bias_tables_of_another_window_are_stretched() -> None:
    from htsat_sed.training.start import _stretched

    rows = torch.arange(13.0).repeat_interleave(13)[:, None]  # rises along one axis alone
    table = _stretched(rows).view(15, 15)
    torch.testing.assert_close(table[0], torch.zeros(15), atol=0.3, rtol=0)
    assert table[-1].mean() == pytest.approx(12.0, abs=0.1)
    torch.testing.assert_close(table[:, :1].expand(-1, 15), table)
