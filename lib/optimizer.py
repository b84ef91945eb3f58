"""PyTorch's optimizers without torch.compile, which they load when first used: seconds of every start, for nothing."""

import inspect
from typing import TypeVar, cast

import torch

WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")  # of what is called here, beside step
Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])


def _by_itself(kind: Kind) -> Kind:
    """The same optimizer, its methods without the wrappers that keep torch.compile from looking into them."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in WRAPPED}
    step = torch.no_grad()(inspect.unwrap(kind.step))  # PyTorch's wrapper switches gradients off, so must we
    return cast(Kind, type(kind.__name__, (kind,), {**methods, "step": step}))


Adam, SGD = _by_itself(torch.optim.Adam), _by_itself(torch.optim.SGD)
