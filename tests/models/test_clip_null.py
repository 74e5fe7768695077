"""CLIP's empty prompt as the context of pretraining, and the U-Net that is handed on from there."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from namd.config.errors import InputError
from namd.models.clip_null import empty_prompt_states
from namd.models.initialisation import initialised_from
from namd.models.unet import NullContext, reading, width_read
from tests.paper_folders import put_clip

WIDTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("sd") / "sd15"
    put_clip(place, WIDTH)
    return place


def unet(width):
    with initialised_from("test-reading", 0):
        return UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=2,
            norm_num_groups=4,
            cross_attention_dim=width,
        )


def test_the_states_are_those_of_begin_and_end_padded_to_77(folder):
    states = empty_prompt_states(str(folder))
    assert states.shape == (1, 77, WIDTH)
    model = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    begin, end = 0, 1
    with torch.no_grad():
        expected = model(torch.tensor([[begin] + [end] * 76])).last_hidden_state
        word = CLIPTokenizer.from_pretrained(folder / "tokenizer")("a").input_ids[1]
        other = model(torch.tensor([[begin, word] + [end] * 75])).last_hidden_state
    torch.testing.assert_close(states, expected)
    assert not torch.allclose(states, other, atol=1e-3)


def test_a_folder_without_encoder_or_tokenizer_is_refused_with_the_way_out(folder, tmp_path):
    with pytest.raises(InputError, match=r"set pretrain\.clip_weights to null"):
        empty_prompt_states(str(tmp_path))
    assert empty_prompt_states(str(folder / "text_encoder")).shape == (1, 77, WIDTH)


def test_frozen_states_stand_for_every_case_and_are_not_trained():
    states = torch.arange(6.0).view(1, 2, 3)
    frozen, learned = NullContext(3, states), NullContext(3)
    torch.testing.assert_close(frozen(4), states.expand(4, -1, -1))
    assert [p for p in frozen.parameters() if p.requires_grad] == []
    assert len([p for p in learned.parameters() if p.requires_grad]) == 1
    assert learned(4).shape == (4, 1, 3)


@pytest.mark.parametrize("projection", ["none", "text_proj"])
def test_a_unet_of_another_context_keeps_all_that_does_not_read_it(projection):
    before = unet(12)
    after = reading(before, 20, projection)
    assert (width_read(before), width_read(after)) == (12, 20)
    old, new = before.state_dict(), after.state_dict()
    changed = {name for name in new if name not in old or new[name].shape != old[name].shape}
    words = ("attn2.to_k", "attn2.to_v") if projection == "none" else ("encoder_hid_proj",)
    assert changed
    assert all(any(word in name for word in words) for name in changed)
    assert all(torch.equal(new[name], old[name]) for name in new.keys() - changed)
    latents = torch.zeros(2, 4, 4, 4)
    drawn = after(latents, torch.tensor(3), torch.zeros(2, 2, 20)).sample
    assert drawn.shape == latents.shape
    with pytest.raises(RuntimeError):
        before(latents, torch.tensor(3), torch.zeros(2, 2, 20))
