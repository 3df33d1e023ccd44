"""Models from elsewhere: torchvision's and torch.hub's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from example_runs import evaluate, train
from few_digits import on_few_digits
from helpers import ROOT, newest
from model.hub_model import HubModel
from model.torchvision_model import TorchvisionModel
from train import parse_args
from utils import CheckpointError, ConfigError

SMALLEST = {  # of each family, with the size of images that it takes
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vit_b_32": 64,
    "wide_resnet50_2": 32,
}
FIXED_SIZE = ("maxvit_t", "vit_b_32")
HUBCONF = """
from torch import nn

def small_net(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

def no_net():
    return 3
"""


def config_for(digits_dir: Path, tmp_path: Path, arch: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Return the default config with another model, of logits, on a few digits."""
    config = json.loads((ROOT / "config.json").read_text()) | {"arch": arch, "loss": "cross_entropy"} | sections
    config["trainer"] |= {"save_dir": str(tmp_path / "saved"), "epochs": 1, "len_epoch": 2}
    return on_few_digits(config, digits_dir)


def resnet(**args: Any) -> dict[str, Any]:
    """Return the section of a resnet18 for grey images."""
    return {"type": "TorchvisionModel", "args": {"name": "resnet18", "in_channels": 1, **args}}


def test_no_family_is_forgotten() -> None:
    names = {name.split("_")[0].rstrip("0123456789") for name in models.list_models(module=models)}
    assert {name.split("_")[0].rstrip("0123456789") for name in SMALLEST} == names


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", SMALLEST)
def test_every_family_trains_a_step_with_seven_classes(name: str, channels: int) -> None:
    torch.manual_seed(0)
    size = SMALLEST[name]
    model = TorchvisionModel(name, None, 7, channels, image_size=size if name in FIXED_SIZE else None)
    model.train()
    images, targets = torch.randn(4, channels, size, size), torch.tensor([0, 2, 4, 6])
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(2):  # the head of some begins with 0, so that a first step changes it alone
        optimizer.zero_grad()
        logits = model(images)
        assert logits.shape == (4, 7)
        nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
    assert logits.isfinite().all()
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert len(still) < len(before) / 10, still
    assert model.eval()(images).shape == (4, 7)


def test_a_model_of_torchvision_trains_and_is_tested_without_its_file(digits_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = models.resnet18()
    path = tmp_path / "resnet18.pth"
    torch.save(source.state_dict(), path)
    freeze = {"freeze": ["conv1.*", "bn1.*", "layer[123].*"]}
    run_dir = train(config_for(digits_dir, tmp_path, resnet(weights=str(path)), fine_tune=freeze))
    path.unlink()
    trained = newest(run_dir)["model"]
    assert torch.equal(trained["conv1.weight"], source.conv1.weight.detach().mean(1, keepdim=True) * 3)
    for name, value in source.state_dict().items():
        if name.startswith(("bn1", "layer1", "layer2", "layer3")):
            assert torch.equal(trained[name], value), name
    assert trained["fc.weight"].shape == (10, 512)
    assert 0 <= evaluate("-r", str(run_dir), "-d", "cpu")["accuracy"] <= 1


def test_a_wrong_name_and_weights_that_are_nowhere_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"arch\.args\.name: .*'resnet81'; did you mean 'resnet18'\?"):
        TorchvisionModel("resnet81")
    with pytest.raises(ConfigError, match=r"arch\.args\.weights: no file 'w\.pth', and torchvision has IMAGENET1K_V1"):
        TorchvisionModel("resnet18", "w.pth")
    with pytest.raises(ConfigError, match=r"arch\.args\.image_size: resnet18 takes images of any size"):
        TorchvisionModel("resnet18", image_size=64)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConfigError) as error:
        TorchvisionModel("resnet18", "DEFAULT")
    assert str(error.value).endswith(f"; put the file at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth")
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"other": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="0 of the model's 122 tensors fit"):
        TorchvisionModel("resnet18", str(tmp_path / "w.pth"))


def test_a_hub_model_of_a_directory_trains(digits_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUBCONF)
    args = {"repo": str(tmp_path / "hub"), "name": "small_net", "args": {"width": 5}}
    run_dir = train(config_for(digits_dir, tmp_path, {"type": "HubModel", "args": args}))
    assert newest(run_dir)["model"]["1.weight"].shape == (5, 784)
    for name, message in (("smal_net", "did you mean 'small_net'"), ("no_net", "returns int, not a model")):
        with pytest.raises(ConfigError, match=message):
            HubModel(str(tmp_path / "hub"), name)
    with pytest.raises(ConfigError, match=r"hubconf\.py: cannot be read: No such file"):
        HubModel(str(tmp_path), "small_net")


def test_a_repository_runs_by_the_command_line_alone(
    digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "someone_nets_main"
    cached.mkdir(parents=True)
    (cached / "hubconf.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{HUBCONF}")
    args: dict[str, Any] = {"repo": "someone/nets:main", "name": "small_net"}
    config = config_for(digits_dir, tmp_path, {"type": "HubModel", "args": args})
    for flags in ([], ["--trust-repo", "someone/others"]):
        with pytest.raises(ConfigError, match=r"arch\.args\.repo: .* give --trust-repo someone/nets to run it$"):
            train(config, *flags)
    args["trusted_repos"] = ["someone/nets"]
    with pytest.raises(ConfigError, match=r"arch\.args\.trusted_repos: is given by the code"):
        train(config)
    assert not (tmp_path / "ran").exists()
    del args["trusted_repos"]
    run_dir = train(config, "--trust-repo", "someone/nets")
    assert (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match="give --trust-repo someone/nets"):
        evaluate("-r", str(run_dir))
    assert evaluate("-r", str(run_dir), "--trust-repo", "someone/nets").keys() >= {"accuracy"}


def test_a_repository_that_cannot_be_reached_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConfigError) as error:
        HubModel("someone/nets:main", "small_net", trusted_repos=("someone/nets",))
    assert str(error.value).endswith(f"; put a copy of it at {tmp_path}/hub/someone_nets_main")


def test_the_groups_of_a_config_are_in_the_schedule_and_in_the_log(digits_dir: Path, tmp_path: Path) -> None:
    optimizer = {
        "type": "AdamW",
        "args": {"lr": 0.01, "params": [{"match": "conv*", "lr": 0.001}]},
        "no_decay": True,
    }
    one_cycle = {"max_lr": [0.001, 0.002, 0.003, 0.004], "total_steps": 2}
    scheduler = {"type": "OneCycleLR", "interval": "step", "args": one_cycle}
    arch = {"type": "MnistModel"}
    config = config_for(digits_dir, tmp_path, arch, optimizer=optimizer, lr_scheduler=scheduler)
    run_dir = train(config)
    groups = newest(run_dir)["optimizer"]["param_groups"]
    assert [(group["max_lr"], group["weight_decay"]) for group in groups] == [
        (0.001, 0.01),
        (0.002, 0.0),
        (0.003, 0.01),
        (0.004, 0.0),
    ]
    assert "weight decay" in (run_dir / "info.log").read_text()
    with pytest.raises(ConfigError, match=r"max_lr has 3 values, param_groups has 4"):
        train(config, "--set", "lr_scheduler.args.max_lr=[0.1,0.2,0.3]")
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay"):
        parse_args(["-c", str(config_path(config, tmp_path)), "--set", "optimizer.layer_decay=2"])


def config_path(config: dict[str, Any], folder: Path) -> Path:
    """Write `config`; return its path."""
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"
