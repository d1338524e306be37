"""One table decides which network a name means; a layout that no head fits is adapted or refused by name."""

import pytest
import torch

from kit.errors import ArchitectureError
from kit.model.architectures import TORCHVISION, ChannelsFirst, build_network, cut_body, find_architecture


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_plain_resnet_names_mean_torchvisions(name):
    assert find_architecture(name).library == "torchvision"
    assert find_architecture(name).full_name == name


def test_a_prefix_means_timms_network_of_the_same_name():
    assert find_architecture("timm/resnet18").library == "timm"
    assert find_architecture("timm/resnet18").full_name == "timm/resnet18"
    assert find_architecture("convnext_atto").full_name == "timm/convnext_atto"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ArchitectureError, match="unknown network 'resnett34'. Did you mean \"resnet34\""):
        find_architecture("resnett34")


@pytest.mark.parametrize(
    ("name", "features", "pooled"),
    [
        ("resnet18", 512, False),
        ("timm/resnet18", 512, False),
        ("convnext_atto", 320, False),
        ("vit_tiny_patch16_224", 192, True),
    ],
)
def test_the_body_gives_as_many_features_as_it_says(name, features, pooled):
    architecture = find_architecture(name)
    body = cut_body(build_network(architecture), architecture, 224)
    assert (body.features, body.pooled) == (features, pooled)
    with torch.no_grad():
        shape = body.module.eval()(torch.zeros(1, 3, 224, 224)).shape
    assert shape[1] == features
    assert len(shape) == (2 if pooled else 4)


def test_swin_which_puts_channels_last_is_adapted():
    architecture = find_architecture("swin_tiny_patch4_window7_224")
    body = cut_body(build_network(architecture), architecture, 224)
    assert isinstance(body.module, ChannelsFirst)
    with torch.no_grad():
        assert body.module.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 768, 7, 7)


def test_a_size_that_a_network_refuses_is_named_before_training():
    architecture = find_architecture("vit_tiny_patch16_224")
    with pytest.raises(ArchitectureError, match="cannot take images of 96 x 96 pixels") as caught:
        cut_body(build_network(architecture), architecture, 96)
    assert "--size 224" in caught.value.fix


def test_a_layout_that_no_head_fits_is_refused_with_its_shape(monkeypatch):
    from fastai.vision.learner import TimmBody

    architecture = find_architecture("vit_tiny_patch16_224")
    monkeypatch.setattr(TimmBody, "forward", lambda self, x: self.model.forward_features(x))
    with pytest.raises(ArchitectureError, match=r"gives features of shape \(2, 197, 192\), which no head fits"):
        cut_body(build_network(architecture), architecture, 224)
