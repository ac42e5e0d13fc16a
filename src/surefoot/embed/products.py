"""Matrix products with weights that stay, as quick as the processor has them."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.environment import processor
from surefoot.errors import ModelError

# oneDNN, and torch's own cache in front of it, keep a thousand kernels each, one for each shape that they have met, half a
# megabyte each: texts of many lengths fill that with what is not met again. Read when the first kernel is made; who has
# set them knows better.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")


class Linear:
    """x W^T + b, with y added where one is given; without b if that is None.

    bfloat16, and float32 on a processor of AMD's: the weights are stored once in the order that oneDNN's products want,
    where torch can do that. On others float32 gains nothing by it; on AMD's, torch's usual products (MKL) are half as
    quick. int8: weights with a scale for each row of W, x with a scale and a zero for each batch; x and what comes
    out are float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: str) -> None:
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.weight = weight.detach().to(kind)
        self.bias = None if bias is None else bias.detach().to(kind)
        #: Whether b is in y already: then y itself is what the product is added to.
        self.carried = False
        self.ordered: Tensor | None = None
        self.rounded: Any = None
        if dtype == "int8":
            self.rounded = _rounded(self.weight, self.bias)
        elif _has_ordered() and (dtype == "bfloat16" or "AMD" in processor()):
            self.ordered = torch.ops.mkldnn._reorder_linear_weight(self.weight)
            self.weight = torch.empty(0)  # read no more

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        found: Tensor
        if self.ordered is not None:
            if y is None:
                found = torch.ops.mkldnn._linear_pointwise(x, self.ordered, self.bias, "none", [], "")
            else:
                found = torch.ops.mkldnn._linear_pointwise.binary(x, y, self.ordered, self.bias, "add")
            return found
        if self.rounded is not None:
            found = torch.ops.quantized.linear_dynamic(x, self.rounded)
        else:
            if y is not None and self.carried:
                return y.addmm_(x, self.weight.t())
            found = F.linear(x, self.weight, self.bias)
        return found if y is None else found.add_(y)

    def shift(self, constant: Tensor) -> None:
        """Make x + constant give what x gave; of plain weights with a bias."""
        self.bias = self.added - self.weight @ constant

    @property
    def added(self) -> Tensor:
        """b, where there is one."""
        assert self.bias is not None
        return self.bias


def _has_ordered() -> bool:
    """Whether this torch has the products that its own compiler emits for processors."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def _rounded(weight: Tensor, bias: Tensor | None) -> Any:
    """W as int8, W ~ s q with q in [-127, 127] and a scale for each row, packed for torch's products."""
    scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.long)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own tensors of int8 are to move to another library
            q = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(q, bias)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"this torch has no int8 products ({reason}): use bfloat16, or --backend onnx") from error
