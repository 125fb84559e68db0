"""What happens in a step: augmentation, losses, schedule, averages."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from clips_made import MIXED, TINY

from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.augmentation import masked, mixed, mixed_with_reversed
from htsat_sed.training.module import Training, make_optimiser, paper_factor
from htsat_sed.training.recipe import AugmentationRecipe, Recipe


def test_spec_augment_masks_and_mixup_mixes_alike() -> None:
    torch.manual_seed(0)
    recipe = AugmentationRecipe(time_masks=1, time_mask=10, band_masks=1, band_mask=4)
    out = masked(torch.ones(50, 100, 64), recipe)
    frames, bands = (out == 0).all(dim=2).sum(dim=1), (out == 0).all(dim=1).sum(dim=1)
    assert frames.max() == 9  # narrower than the recipe says, as torchlibrosa has it
    assert bands.max() == 3
    assert frames.min() == bands.min() == 0
    x = torch.arange(6.0)
    one, other = mixed((x.view(6, 1), x.view(6, 1, 1)), alpha=0.5)
    torch.testing.assert_close(one.flatten(), other.flatten())
    assert not torch.equal(one.flatten(), x)
    assert one.min() >= 0.0
    assert one.max() <= 5.0


def test_published_mixup_is_of_the_spectrogram_with_the_reversed_batch() -> None:
    """As HTS-AT's authors have it: x * w + x[::-1] * (1 - w), a weight an item, labels unmixed."""
    torch.manual_seed(0)
    x = torch.eye(4)[:, None]  # (4 items, 1 frame, 4 bands)
    out = mixed_with_reversed(x, alpha=0.5)[:, 0]
    for item in range(4):
        assert out[item].sum().item() == pytest.approx(1.0)
        assert {i for i in range(4) if out[item, i] > 0} <= {item, 3 - item}
    assert len({round(float(out[item, item]), 4) for item in range(4)}) == 4


def test_what_decays() -> None:
    for decays, rest in (("layers", 0.0), ("all", 0.05)):
        groups = make_optimiser(module(MIXED).model, replace(MIXED, decays=decays)).param_groups
        assert [group["weight_decay"] for group in groups] == [0.05, rest]


def test_published_schedule() -> None:
    """As HTS-AT's authors have it: by bisection of (10, 20, 30)."""
    epochs = (0, 1, 2, 3, 10, 11, 20, 21, 30, 31, 99)
    wanted = [0.02, 0.05, 0.1, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03]
    assert [paper_factor(epoch) for epoch in epochs] == wanted


def module(recipe: Recipe) -> Training:
    model = HTSAT(HTSATConfig(classes=2, **vars(TINY)), ("High", "Low"))
    return Training(model, recipe, epoch_steps=10)


def test_one_cycle_rises_and_falls() -> None:
    training = module(replace(MIXED, epochs=10, warm_up=0.1))
    factors = [training._factor(step) for step in range(100)]
    assert factors[8] == pytest.approx(0.9)
    assert max(factors) == pytest.approx(1.0, abs=1e-3)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.0, abs=1e-9)


def test_averages_of_the_last_epochs_and_moving() -> None:
    training = module(replace(MIXED, epochs=10, average="epochs", average_epochs=4))
    weights = [training._weight(step) for step in range(1, 101)]
    assert {i + 1: w for i, w in enumerate(weights) if w} == pytest.approx(
        {**{step: 1.0 for step in range(10, 80, 10)}, 80: 1 / 2, 90: 1 / 3, 100: 1 / 4}
    )
    moving = module(replace(MIXED, average="ema", ema_decay=0.9))
    assert moving._weight(1) == pytest.approx(0.9)
    assert moving._weight(10_000) == pytest.approx(0.1)


def test_losses_of_weak_and_strong_labels_in_one_batch() -> None:
    training = module(MIXED)
    out = training.model.eval()(torch.randn(3, 320_000) / 10)
    clip = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tokens = torch.rand(3, 32, 2)
    strong = torch.tensor([False, True, False])
    known = torch.zeros(3, 2, dtype=torch.bool)
    terms = training._losses(out, clip, tokens, strong, known)
    assert terms["token_loss"].item() == pytest.approx(
        F.binary_cross_entropy(out.presence_logits[1].sigmoid(), tokens[1]).item(), abs=1e-6
    )
    assert terms["clip_loss"].item() == pytest.approx(
        F.binary_cross_entropy(out.clip_logits.sigmoid(), clip).item(), abs=1e-6
    )
    assert "token_loss" not in training._losses(out, clip, tokens, torch.zeros(3, dtype=torch.bool), known)
    single = module(replace(MIXED, loss="cross-entropy"))._losses(out, clip, tokens, ~strong, known)[
        "clip_loss"
    ]
    by_hand = -(clip * out.clip_logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert single.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_unknown_classes_are_left_out_of_the_losses() -> None:
    training = module(MIXED)
    out = training.model.eval()(torch.randn(2, 320_000) / 10)
    strong = torch.ones(2, dtype=torch.bool)
    clip = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    tokens = torch.zeros(2, 32, 2)
    tokens[0, :3, 1] = 1.0
    tokens[0, 3, 1] = 0.5
    unknown = torch.tensor([[False, True], [True, False]])
    terms = training._losses(out, clip, tokens, strong, unknown)
    # Of the class that may sound besides its event, the event alone; of the other item's, nothing.
    wanted = [(0, 0, 0.0), (0, 1, 1.0), (1, 1, 0.0)]
    scores = out.clip_logits.sigmoid()
    by_hand = [F.binary_cross_entropy(scores[i, k], torch.tensor(y)) for i, k, y in wanted]
    assert terms["clip_loss"].item() == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-6)
    scores = out.presence_logits.sigmoid()
    kept = torch.cat([1.0 - scores[0, :, 0], scores[0, :3, 1], 1.0 - scores[1, :, 1]])
    assert terms["token_loss"].item() == pytest.approx(-kept.log().mean().item(), abs=1e-6)


def test_frozen_weights_stay() -> None:
    recipe = replace(MIXED, frozen=("bias_table", "norm"))
    model = module(recipe).model
    trained = {id(p) for group in make_optimiser(model, recipe).param_groups for p in group["params"]}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in trained]
    assert left == [name for name, _ in model.named_parameters() if "bias_table" in name or "norm" in name]
    with pytest.raises(ValueError, match="none has 'bias_tables'"):
        make_optimiser(model, replace(MIXED, frozen=("bias_tables",)))
