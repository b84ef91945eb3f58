import contextlib
import functools
import itertools
import math
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lib import paper, plan
from lib.card import depth
from lib.ic import IC
from lib.paper import ordering_name, unit_name
from lib.resnet import BASELINES, BLOCKS, LAYERS, ResNet
from tools import structure as structures

PARAMS = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
PAPERS = ("baseline", "relu_ic_conv", "ic_conv_relu", "conv_relu_ic")
OTHERS = ("baseline_ic", "relu_bn_conv", "bn_relu_conv", "conv_bn_relu", "relu_dropout_conv", "conv_relu", "conv")
GOLDEN = Path(__file__).with_name("golden") / "structures.txt"
DROPOUT_P = 0.05

# fmt: off
PARAMETERS = {  # of a network in each of the papers' orderings
    #              block         n      baseline   relu_ic_conv  ic_conv_relu  conv_relu_ic
    "resnet110":  ("basic",      18, (1_730_714,   1_730_426,    1_730_426,    1_730_522)),
    "resnet164":  ("basic",      27, (2_605_658,   2_605_370,    2_605_370,    2_605_466)),
    "resnetb110": ("bottleneck", 12, (1_147_738,   1_146_362,    1_146_362,    1_146_842)),
    "resnetb164": ("bottleneck", 18, (1_704_154,   1_702_778,    1_702_778,    1_703_258)),
}
# fmt: on
PINNED = {
    (network, ordering): count
    for network, (_, _, counts) in PARAMETERS.items()
    for ordering, count in zip(PAPERS, counts, strict=True)
}


@functools.cache
def shape_of(network: str, ordering: str) -> ResNet:
    """A network of full size without memory for its weights."""
    block, n, _ = PARAMETERS[network]
    with torch.device("meta"):
        return ResNet(block, n, ordering, dropout_p=DROPOUT_P)


def small(block: str, ordering: str, dropout_p: float = DROPOUT_P, n: int = 1) -> ResNet:
    torch.manual_seed(4)
    return ResNet(block, n, ordering, dropout_p=dropout_p)


def images(number: int, size: int = 8) -> torch.Tensor:
    """Small ones are enough where the sizes of maps do not matter."""
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(5))


# ---- number of parameters and of layers


def parameters_by_hand(block: str, n: int, ordering: str) -> int:
    """What a network of the paper's Sec. 2 has, from nothing but the numbers given there."""
    total = 3 * 3 * 3 * 16 + 2 * 16  # stem: 3x3 convolution of 3 to 16 maps; a BN has a scale and a shift a map
    maps = 16
    for width in (16, 32, 64):
        for number in range(n):
            inputs = maps
            for k, outputs in {"basic": [(3, width)] * 2, "bottleneck": [(1, width), (3, width), (1, 4 * width)]}[
                block
            ]:
                normalised = maps if ordering in ("relu_ic_conv", "ic_conv_relu") else outputs  # before conv, or after
                total += k * k * maps * outputs + 2 * normalised
                maps = outputs
            if maps != inputs or (number == 0 and width > 16):  # where maps change in number or in size
                total += 1 * 1 * inputs * maps + (2 * maps if ordering == "baseline" else 0)
    return total + maps * 10 + 10  # linear


def test_every_network_in_every_ordering_of_the_study_has_its_number_of_parameters_pinned():
    assert set(PINNED) == set(itertools.product(PARAMS["networks"], PARAMS["orderings"]))
    sizes = {name: {"block": block, "blocks_per_stage": n} for name, (block, n, _) in PARAMETERS.items()}
    assert sizes == PARAMS["networks"]


@pytest.mark.parametrize(("network", "ordering"), PINNED)
def test_a_network_has_as_many_parameters_as_pinned_and_as_counted_by_hand(network, ordering):
    block, n, _ = PARAMETERS[network]
    assert PINNED[network, ordering] == parameters_by_hand(block, n, ordering)
    assert PINNED[network, ordering] == sum(each.numel() for each in shape_of(network, ordering).parameters())


def weight_layers(network: ResNet) -> int:
    """Weight layers but those of short connections, counted in the built network."""
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and "short_connection" not in name
        for name, module in network.named_modules()
    )


@pytest.mark.parametrize(
    ("network", "layers"),
    [("resnet110", 6 * 18 + 2), ("resnet164", 6 * 27 + 2), ("resnetb110", 110), ("resnetb164", 164)],
)
@pytest.mark.parametrize("ordering", PAPERS)
def test_a_network_has_as_many_weight_layers_as_its_name_and_depth_say(network, layers, ordering):
    block, n, _ = PARAMETERS[network]
    assert network.endswith(str(layers))
    assert weight_layers(shape_of(network, ordering)) == depth(block, n) == layers


@pytest.mark.parametrize(("block", "per_n"), [("basic", 6), ("bottleneck", 9)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_depth_of_shallow_networks_is_that_of_their_family(block, per_n, n):
    assert weight_layers(small(block, "baseline", n=n)) == depth(block, n) == per_n * n + 2


# ---- structure


@pytest.mark.parametrize(("network", "ordering"), PINNED)
def test_every_convolution_is_padded_to_keep_the_images_size_and_every_ic_layer_drops_as_told(network, ordering):
    for module in shape_of(network, ordering).modules():
        if isinstance(module, nn.Conv2d):
            (k, other), (stride, across) = module.kernel_size, module.stride
            assert (other, across, module.padding) == (k, stride, (k // 2, k // 2))
        assert not isinstance(module, IC) or module.drop.p == DROPOUT_P


def structure(network: str, ordering: str) -> str:
    block, n, _ = PARAMETERS[network]
    return "\n".join(structures.structure(network, block, n, ordering))


def test_the_structures_are_those_of_the_golden_file_to_be_read_beside_the_papers_figure_2():
    text = "\n\n".join(structure(*row) for row in PINNED) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet110", "relu_bn_conv"), "110 layers, 1,730,"),
        (("resnet111", "baseline"), "there are resnet110, resnet164"),
        (("resnet110", "relu_ic"), "conv once"),
    ],
)
def test_the_structure_of_any_ordering_is_shown_or_the_names_refused(arguments, words, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("sys.argv", ["structure", *arguments])
    with pytest.raises(SystemExit) if "110 layers" not in words else contextlib.nullcontext():
        structures.main()
    shown = capsys.readouterr()
    assert words in shown.out + shown.err
    assert len((shown.out + shown.err).splitlines()) == (1 if shown.err else 8)


def test_the_depth_shown_is_that_of_the_weight_layers():
    for network, ordering in PINNED:
        assert f": {weight_layers(shape_of(network, ordering))} layers" in structure(network, ordering)


def test_what_a_plan_may_name_are_the_layers_and_baselines_that_there_are_and_each_has_a_name_for_titles():
    assert set(plan.LAYERS) == {"conv", *LAYERS}
    assert set(plan.BASELINES) == set(BASELINES)
    names = {ordering_name(each) for each in (*plan.LAYERS, *plan.BASELINES)}
    assert len(names) == len(plan.LAYERS) + len(plan.BASELINES)
    assert [unit_name("basic", each) for each in plan.BASELINES] == ["Baseline", "Baseline-IC"]


@pytest.mark.parametrize("network", PARAMETERS)
def test_the_baseline_with_the_ic_layer_is_the_baseline_but_for_the_dropout_in_its_units(network):
    with_ic = structure(network, "baseline_ic")
    assert with_ic.count("IC(") == structure(network, "baseline").count("BN(") - 1 - 2 - (network.startswith("resnetb"))
    units = re.sub(r"\[.*?\]", lambda each: each.group().replace("IC(", "BN("), with_ic)
    assert units.replace("baseline_ic", "baseline") == structure(network, "baseline")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("ordering", [*PAPERS, *OTHERS])
def test_maps_shrink_from_stage_to_stage_and_logits_come_out(block, ordering):
    net = small(block, ordering).eval()
    maps, sizes = net.stem(images(2, size=32)), []
    for stage in net.stages:
        maps = stage(maps)
        sizes.append(tuple(maps.shape))
    times = 4 if block == "bottleneck" else 1
    assert sizes == [(2, 16 * times, 32, 32), (2, 32 * times, 16, 16), (2, 64 * times, 8, 8)]
    assert net(images(2, size=32)).shape == (2, 10)


@pytest.mark.parametrize("network", PARAMETERS)
def test_the_full_networks_give_a_row_of_ten_logits_an_image(network):
    assert shape_of(network, "relu_ic_conv")(torch.empty(3, 3, 32, 32, device="meta")).shape == (3, 10)


@pytest.mark.parametrize("ordering", [*PAPERS, "baseline_ic", "relu_bn_conv"])
def test_a_block_adds_its_branch_to_its_input(ordering):
    block = small("basic", ordering).stages[0][0].eval()
    for module in block.branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    maps = torch.randn(2, 16, 8, 8)
    branch_off = maps.relu() if ordering in BASELINES else maps  # the baseline's ReLU follows the addition
    assert torch.equal(block(maps), branch_off)


@pytest.mark.parametrize(
    "ordering", ["relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "baseline_ic", "relu_dropout_conv"]
)
@pytest.mark.parametrize("p", [0.0, 0.25])
def test_every_dropout_has_the_probability_asked_for(ordering, p):
    drops = [module.p for module in small("bottleneck", ordering, p).modules() if isinstance(module, nn.Dropout)]
    assert drops == [p] * 9


@pytest.mark.parametrize("ordering", ["baseline", "relu_bn_conv", "conv_relu"])
def test_orderings_without_dropout_have_none(ordering):
    assert not any(isinstance(module, nn.Dropout) for module in small("basic", ordering).modules())


# ---- behaviour


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("ordering", [*PAPERS, *OTHERS])
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(block, ordering):
    net = small(block, ordering).train()
    nn.functional.cross_entropy(net(images(8)), torch.arange(8)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("ordering", [*PAPERS, *OTHERS])
def test_a_step_of_training_brings_the_loss_down(block, ordering):
    net, given, classes = small(block, ordering, dropout_p=0.0).train(), images(8), torch.arange(8)
    before = nn.functional.cross_entropy(net(given), classes)
    gradients = torch.autograd.grad(before, list(net.parameters()))
    length = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter -= 0.01 / length * gradient
    assert nn.functional.cross_entropy(net(given), classes) < before


@pytest.mark.parametrize("ordering", [*PAPERS, "baseline_ic", "relu_dropout_conv"])
def test_dropout_makes_training_outputs_differ_and_evaluation_is_deterministic(ordering):
    net, given = small("basic", ordering, dropout_p=0.3), images(4)
    first, second = net.train()(given), net(given)
    assert torch.equal(first, second) == (ordering == "baseline")
    assert torch.equal(net.eval()(given), net(given))


@pytest.mark.parametrize("ordering", PAPERS)
def test_in_evaluation_an_images_logits_do_not_depend_on_its_batch(ordering):
    net, given = small("basic", ordering).eval(), images(4)
    torch.testing.assert_close(net(given)[:1], net(given[:1]))


@pytest.mark.parametrize("block", BLOCKS)
def test_weights_begin_with_mean_0_and_variance_2_over_fan_in_and_biases_with_0(block):
    net = small(block, "relu_ic_conv", n=2)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights = module.weight.detach().double()
            wanted = 2 / weights[0].numel()  # fan-in: the inputs of one output
            assert abs(weights.mean()) < 5 * math.sqrt(wanted / weights.numel())
            assert abs(weights.square().mean() / wanted - 1) < 5 * math.sqrt(2 / weights.numel())
    assert not net.classifier.bias.any()


def test_the_weights_are_decided_by_the_seed():
    one, again = small("basic", "baseline"), small("basic", "baseline")
    torch.manual_seed(6)
    other = ResNet("basic", 1, "baseline")
    assert torch.equal(one.classifier.weight, again.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("p", [1.0, -0.1, math.nan])
def test_a_dropout_probability_that_is_none_is_refused(p):
    with pytest.raises(ValueError):
        ResNet("basic", 1, "relu_ic_conv", dropout_p=p)


def test_a_kind_of_layer_of_ones_own_takes_the_lines_that_the_documents_name(monkeypatch, tmp_path):
    """Group normalisation, in an ordering and in the classical block."""
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    lines = re.findall(
        r'^ +("gn": .*),  *# LAYERS of lib/resnet|^ +("gn": .*),  *# LAYERS of lib/plan|'
        r'^ +("gn": .*),  *# LAYER_NAMES of lib/paper|`("baseline_gn": "gn")`',
        page,
        re.MULTILINE,
    )
    told = [eval(f"{{{''.join(line)}}}", {"nn": nn}) for line in lines]
    for of, entry in zip((BASELINES, LAYERS, plan.LAYERS, paper.LAYER_NAMES), told, strict=True):
        monkeypatch.setitem(of, *next(iter(entry.items())))
    params = PARAMS | {"orderings": ["conv_relu_gn", "baseline_gn"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    cards = plan.read_study(tmp_path / "params.yaml").cards()
    assert {(card.ordering, card.dropout_p) for card in cards} == {("conv_relu_gn", None), ("baseline_gn", None)}
    assert [ordering_name(each) for each in ("conv_relu_gn", "baseline_gn")] == ["Conv2D-ReLU-GN", "Baseline-GN"]
    for ordering in ("conv_relu_gn", "baseline_gn"):
        network = small("basic", ordering)
        assert any(isinstance(layer, nn.GroupNorm) for layer in network.modules())
        network(images(2)).sum().backward()
        assert all(each.grad is not None for each in network.parameters())
