"""The model against what the official implementation computed with the same rule-made weights."""

from functools import cache

import numpy as np
import pytest
import torch
from golden.reference_state import parameter
from rule_made import golden, golden_config, golden_recording

from htsat_sed.model.htsat import HTSAT, HTSATConfig, fold, stretch
from htsat_sed.model.swin import MLP, _attend, reorder, window_order

GOLDENS = ["audioset_10s", "audioset_5s_repeat", "scv2_16k", "small_ce"]
TINY = HTSATConfig(classes=4, embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))


@cache
def rule_made_model(name: str) -> HTSAT:
    model = HTSAT(golden_config(name)).eval()
    for key, array in model.state_dict().items():
        if key != "bn0.num_batches_tracked":
            values = parameter(key.removeprefix("backbone."), tuple(array.shape), int(golden(name)["seed"]))
            array.copy_(torch.from_numpy(values))
    return model


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens(name: str) -> None:
    expected = golden(name)
    model = rule_made_model(name)
    waveform = torch.from_numpy(golden_recording(name))[None]
    with torch.inference_mode():
        logmel = model.frontend(waveform)[0].numpy()
        out = model(waveform)
    clip = out.clip_logits[0] if expected["loss"] == "clip_ce" else model.scores(out.clip_logits)[0]
    np.testing.assert_allclose(logmel, expected["logmel"], rtol=0, atol=0.01)
    np.testing.assert_allclose(
        out.presence_logits[0].sigmoid().numpy(), expected["presence"], rtol=0, atol=2e-4
    )
    np.testing.assert_allclose(clip.numpy(), expected["clipwise"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(out.embedding[0].numpy(), expected["latent"], rtol=0, atol=2e-4)


def test_scores_of_a_single_label_model_are_a_softmax() -> None:
    logits = torch.tensor([[0.0, 0.0, 2.0]]).log1p()
    model = rule_made_model("small_ce")
    torch.testing.assert_close(model.scores(logits), torch.tensor([[0.2, 0.2, 0.6]]))
    assert torch.equal(rule_made_model("audioset_10s").scores(logits), logits.sigmoid())


def test_training_mode_computes_the_same_without_its_noise() -> None:
    model = HTSAT(HTSATConfig(**{**TINY.__dict__, "drop_path": 0.0})).eval()
    waveforms = torch.randn(3, 32_000)
    with torch.inference_mode():
        shortcuts = model(waveforms)
    with_gradient = model(waveforms)
    assert with_gradient.clip_logits.requires_grad
    for fast, plain in zip(shortcuts, with_gradient, strict=True):
        torch.testing.assert_close(fast, plain.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("biases", [1, 6], ids=["one bias", "a bias for each window"])
def test_training_in_bfloat16_attends_as_float32_does(biases: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        qkv, bias = torch.randn(6, 64, 3, 2, 24), torch.randn(biases, 2, 64, 64)
    found, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        own = qkv.to(dtype).detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found.append(_attend(own, bias.to(dtype)))
        found[-1].square().sum().backward()
        gradients.append(own.grad)
    assert found[1].dtype == torch.bfloat16
    for exact, rough in (found, gradients):
        assert (rough.float() - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("frozen", ["fc1.weight", "fc1", "fc2"])
def test_a_part_of_an_mlp_can_be_frozen(frozen: str) -> None:
    mlp = MLP(8, 16)
    x = torch.randn(1, 5000, 8)  # more rows than a block without gradients
    mlp.requires_grad_(True)
    mlp(x).sum().backward()
    wanted = {name: p.grad.clone() for name, p in mlp.named_parameters() if p.grad is not None}
    mlp.zero_grad()
    for name, own in mlp.named_parameters():
        own.requires_grad_(not name.startswith(frozen))
    mlp(x).sum().backward()
    for name, own in mlp.named_parameters():
        if name.startswith(frozen):
            assert own.grad is None
        else:
            torch.testing.assert_close(own.grad, wanted[name])


def test_kept_bias_follows_its_table() -> None:
    model = HTSAT(TINY).eval()
    waveforms = torch.randn(1, 32_000)
    with torch.no_grad():
        before = model(waveforms).clip_logits
        for name, table in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                table.normal_(std=3.0)
        after = model(waveforms).clip_logits
    fresh = HTSAT(TINY).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(after, fresh(waveforms).clip_logits)
    assert not torch.allclose(before, after, atol=1e-4)


def test_bias_is_kept_between_calls() -> None:
    attention = HTSAT(TINY).eval().backbone.layers[1].blocks[1].attn
    with torch.no_grad():
        assert attention.bias() is attention.bias()
        attention.double()
        assert attention.bias().dtype == torch.float64
    assert attention.bias() is not attention.bias()


def test_nothing_derived_is_in_the_state_dict() -> None:
    keys = set(HTSAT(TINY).state_dict())
    assert not {
        key for key in keys if "frontend" in key or "order" in key or "mask" in key or "position_in" in key
    }
    assert "backbone.layers.1.blocks.0.attn.relative_position_bias_table" in keys


@pytest.mark.parametrize("contiguous", [True, False])
def test_reordering_and_its_gradient_equal_those_of_indexing(contiguous: bool) -> None:
    order = torch.tensor([2, 0, 3, 1])
    kept = torch.arange(24.0).view(2, 4, 3) if contiguous else torch.arange(24.0).view(2, 3, 4).mT
    found = {}
    for name, permute in (("ours", reorder), ("torch", lambda x, order: x[:, order])):
        x = kept.clone().requires_grad_()
        y = permute(x, order)
        (y * torch.arange(24.0).view_as(y)).sum().backward()  # another weight for each value
        assert x.grad is not None
        found[name] = (y.tolist(), x.grad.tolist())
    assert found["ours"] == found["torch"]


def test_window_order_of_a_small_grid() -> None:
    # 0  1 | 2  3        shifted by one, the grid begins at token 5:
    # 4  5 | 6  7        5  6 | 7  4
    # ------+-----       9 10 | 11 8
    # 8  9 | 10 11       ...
    assert window_order(4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert window_order(4, 2, shift=1).tolist()[:8] == [5, 6, 9, 10, 7, 4, 11, 8]


def test_fold_stacks_chunks_along_frequency() -> None:
    frames = torch.arange(1024.0)[None, :, None] + torch.arange(64.0)[None, None, :] / 100.0
    image = fold(frames)
    assert image.shape == (1, 1, 256, 256)
    # row 2 x 64 + 5 is band 5 of the third chunk, whose first frame is 512
    torch.testing.assert_close(image[0, 0, 2 * 64 + 5, :3], torch.tensor([512.05, 513.05, 514.05]))


def test_stretch_keeps_first_and_last_frame_and_repeats_short_ones() -> None:
    logmel = torch.randn(1, 1001, 64)
    stretched = stretch(logmel)
    assert stretched.shape == (1, 1024, 64)
    torch.testing.assert_close(stretched[:, [0, -1]], logmel[:, [0, -1]])
    torch.testing.assert_close(stretch(logmel[:, :512]), logmel[:, :512].repeat(1, 2, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": 0}, "wanted classes of 1 to 100000, got 0"),
        ({"depths": (2, 2)}, "wanted depths of four stages"),
        ({"heads": (5, 8, 16, 32)}, "wanted heads of four stages that divide their widths, 96 x"),
        ({"fmax": 20.0}, "wanted 0 <= fmin < fmax, got 50.0 and 20.0"),
        ({"loss": "mse"}, "wanted loss clip_bce or clip_ce, got 'mse'"),
        ({"mel_bands": 128}, "wanted mel_bands 64, got 128"),
    ],
)
def test_impossible_configurations_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HTSATConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32_000,), r"wanted waveforms of shape \(B, samples\), got \(32000,\)"),
        ((1, 512), "wanted more than 512 samples a waveform, got 512: pad with zeros"),
        ((1, 330_000), "wanted at most 1024 frames, got 1032: cut the recording into windows"),
    ],
)
def test_impossible_waveforms_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HTSAT(TINY).eval()(torch.zeros(shape))


def test_labels_must_be_one_a_class() -> None:
    with pytest.raises(ValueError, match="wanted 4 labels, one per class, got 2"):
        HTSAT(TINY, ("a", "b"))
    with pytest.raises(ValueError, match="wanted distinct labels, got 'a' twice"):
        HTSAT(TINY, ("a", "b", "c", "a"))
    assert HTSAT(TINY).labels == ("class_000", "class_001", "class_002", "class_003")
