"""Where weights come from, what is refused, and what fits a cut network."""

import hashlib
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from kad_export import weights as module
from kad_export.backbones import build_trunk
from kad_export.errors import BackboneError, WeightsError
from kad_export.weights import load_into_trunk, load_weights

from kad_sdk.tensors import read_tensors, write_tensors

LAYERS = ("layer2", "layer3")


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    return dict(load_weights("random:5", "resnet18").state_dict)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No cache, no folder, no network; returns the folder of torch's cache."""

    def refuse(url, *_args, **_kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("KAD_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "torch" / "hub" / "checkpoints"


def _outputs(state, layers=LAYERS):
    trunk = build_trunk("resnet18", layers, seed=9)
    load_into_trunk(trunk, module.Weights(state, "file", "test", "0" * 64))
    return trunk(torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64))


def _assert_equal(maps, others):
    for a, b in zip(maps, others, strict=True):
        assert torch.equal(a, b)


# ---- random -------------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone():
    first = load_weights("random:7", "resnet18")
    torch.manual_seed(123)
    again = load_weights("random:7", "resnet18")
    other = load_weights("random:8", "resnet18")
    assert (first.source, first.name) == ("random", "random:7")
    assert first.sha256 == again.sha256 != other.sha256
    assert torch.equal(first.state_dict["conv1.weight"], again.state_dict["conv1.weight"])


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    load_weights("random:7", "resnet18")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "٣", str(2**63)])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(WeightsError, match=r"expected random:SEED with a whole number"):
        load_weights(f"random:{seed}", "resnet18")


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_file_is_loaded_and_named_without_its_folder(tmp_path, resnet18, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        floats = {k: v.numpy() for k, v in resnet18.items() if v.is_floating_point()}
        write_tensors(path, floats)
    else:
        torch.save(resnet18, path)
    weights = load_weights(str(path), "resnet18")
    assert (weights.source, weights.name) == ("file", f"mine{suffix}")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    _assert_equal(_outputs(weights.state_dict), _outputs(resnet18))


def test_a_link_to_a_safetensors_file_is_followed(tmp_path, resnet18):
    write_tensors(tmp_path / "blob", {"conv1.weight": resnet18["conv1.weight"].numpy()})
    (tmp_path / "w.safetensors").symlink_to(tmp_path / "blob")
    loaded = load_weights(str(tmp_path / "w.safetensors"), "resnet18").state_dict
    assert torch.equal(loaded["conv1.weight"], resnet18["conv1.weight"])


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.mkdir, (self.marker,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    torch.save({"conv1.weight": _Bomb(tmp_path / "ran")}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"bomb\.pth is refused.*could run code"):
        load_weights(str(tmp_path / "bomb.pth"), "resnet18")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 truncated"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights file .*w\."):
        load_weights(str(tmp_path / name), "resnet18")


def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, resnet18):
    torch.save(resnet18, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"w\.pth is damaged"):
        load_weights(str(tmp_path / "w.pth"), "resnet18")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3, "state_dict": {}}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"expected a state dict .*got"):
        load_weights(str(tmp_path / "w.pth"), "resnet18")


@pytest.mark.parametrize("spec", ["missing.pth", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path, spec):
    with pytest.raises(WeightsError, match=rf"{spec} cannot be read: No such file"):
        load_weights(str(tmp_path / spec), "resnet18")


@pytest.mark.parametrize("spec", ["imagenet1k", "weights.ckpt", "random"])
def test_an_unknown_specification_lists_the_known_ones(spec):
    with pytest.raises(WeightsError, match=r"expected imagenet, random:SEED, or a file"):
        load_weights(spec, "resnet18")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, resnet18, value):
    bad = resnet18["layer2.0.conv1.weight"].clone()
    bad[0, 0, 0, 0] = value
    torch.save({**resnet18, "layer2.0.conv1.weight": bad}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight holds NaN or Inf"):
        load_weights(str(tmp_path / "w.pth"), "resnet18")


def test_integers_are_refused(tmp_path):
    write_tensors(tmp_path / "w.safetensors", {"conv1.weight": np.zeros((2, 2), np.int32)})
    with pytest.raises(WeightsError, match=r"conv1\.weight is torch\.int32"):
        load_weights(str(tmp_path / "w.safetensors"), "resnet18")


# ---- fitting a network --------------------------------------------------------------------------


def test_parts_that_are_cut_off_and_counters_may_be_missing(resnet18):
    kept = {
        key: value
        for key, value in resnet18.items()
        if not key.startswith(("layer4.", "fc.")) and not key.endswith("num_batches_tracked")
    }
    assert len(kept) < len(resnet18)
    _assert_equal(_outputs(kept), _outputs(resnet18))


def test_another_networks_weights_are_refused_with_keys_and_shapes():
    trunk = build_trunk("resnet18", LAYERS)
    with pytest.raises(WeightsError) as caught:
        load_into_trunk(trunk, load_weights("random:0", "resnet50"))
    text = str(caught.value)
    assert "weights random:0 do not belong to this network" in text
    assert "layer1.0.conv1.weight: expected shape (64, 64, 3, 3), got (64, 64, 1, 1)" in text
    assert "more" in text
    assert len(text) < 600


def test_a_deeper_network_of_the_same_shapes_is_refused():
    deeper = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(WeightsError, match=r"layer1\.2\.conv1\.weight is not part of the network"):
        _outputs(deeper)


@pytest.mark.parametrize("key", ["conv1.weight", "layer3.1.bn2.running_var"])
def test_a_missing_entry_is_named_with_its_shape(resnet18, key):
    rest = {name: value for name, value in resnet18.items() if name != key}
    with pytest.raises(WeightsError, match=rf"{key} is missing \(expected shape"):
        _outputs(rest)


def test_the_last_layer_needed_decides_what_may_be_missing(resnet18):
    kept = {key: value for key, value in resnet18.items() if not key.startswith(("layer4", "fc"))}
    with pytest.raises(WeightsError, match=r"layer4\.0\.conv1\.weight is missing"):
        _outputs(kept, layers=("layer4",))


# ---- imagenet -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("nowhere")
def test_imagenet_offline_says_what_was_tried_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("KAD_WEIGHTS_DIR", str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as caught:
        load_weights("imagenet", "resnet18")
    text = str(caught.value)
    for part in (
        *("ImageNet weights of resnet18 cannot be had", "resnet18-f37072fd.pth: no such file"),
        *(f"{tmp_path}/mine/resnet18_trunk.safetensors: no such file", "https://"),
        *("Name or service not known", "--weights FILE", "KAD_WEIGHTS_DIR", "random:SEED"),
    ):
        assert part in text


@pytest.mark.usefixtures("nowhere")
def test_the_shared_trunk_stands_in_for_resnet18_alone(monkeypatch, weights_file):
    monkeypatch.setenv("KAD_WEIGHTS_DIR", str(weights_file.parent))
    weights = load_weights("imagenet", "resnet18")
    assert weights.source == "imagenet"
    assert weights.name == "resnet18 IMAGENET1K_V1, resnet18_trunk.safetensors"
    assert weights.sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=r"ImageNet weights of resnet50 cannot be had"):
        load_weights("imagenet", "resnet50")


def test_torchs_cache_is_looked_in_first(monkeypatch, nowhere, tmp_path, resnet18):
    nowhere.mkdir(parents=True)
    cached = nowhere / "resnet18-f37072fd.pth"
    torch.save(resnet18, cached)
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "_hash_prefix", lambda _name: digest[:8])
    monkeypatch.setenv("KAD_WEIGHTS_DIR", str(tmp_path))
    (tmp_path / cached.name).write_bytes(b"not looked at")
    weights = load_weights("imagenet", "resnet18")
    assert (weights.name, weights.sha256) == (f"resnet18 IMAGENET1K_V1, {cached.name}", digest)


def test_a_damaged_file_in_the_cache_is_found_by_its_hash(nowhere, resnet18):
    nowhere.mkdir(parents=True)
    torch.save(resnet18, nowhere / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match=r"expected a SHA-256 that begins with f37072fd"):
        load_weights("imagenet", "resnet18")


def test_imagenet_is_downloaded_into_the_cache(monkeypatch, nowhere, resnet18):
    asked = []

    def download(url, path, prefix, *, progress):
        asked.append((url, prefix))
        torch.save(resnet18, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(module, "_checked", lambda path, *_args: path)
    assert load_weights("imagenet", "resnet18") == nowhere / "resnet18-f37072fd.pth"
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]


def test_an_unknown_backbone_has_no_weights():
    with pytest.raises(BackboneError, match=r"unknown backbone 'resnet19'"):
        load_weights("imagenet", "resnet19")


def test_real_weights_arrive_unchanged(weights_file):
    trunk = build_trunk("resnet18", LAYERS)
    load_into_trunk(trunk, load_weights(str(weights_file), "resnet18"))
    state = trunk.network.state_dict()
    expected = read_tensors(weights_file)
    assert len(expected) == 75
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), value, err_msg=name)
