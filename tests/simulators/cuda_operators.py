"""What torch's operators do otherwise on CUDA than on a CPU, for the stand-in: refuse, or give other bits.

Read in ATen's CUDA sources (2.3 to 2.10). An operator that is not named here has the same bits on both: copies, comparisons,
single sums, products and quotients of tensors, square roots, integers in any order, sorts by value.

  unsigned     uint16, uint32 and uint64 are made, copied, viewed and compared; everything else is not implemented
  order        float sums, means, products and scans go another way: here as a tree, or from the end
  ties         a sort that is not asked to be stable gives ties any order: here the last first
  numbers      a float tensor divided by a number is multiplied by its reciprocal
  functions    exp, log, powers and the like are CUDA's own, sums of products are fused: here one unit in the last place off
  atomics      float index_add_ and scatter_add_ add in no order: here the last first; others are refused
  duplicates   a place that is written twice holds either: refused where the values differ
"""

from collections.abc import Callable
from typing import Any

import torch

UNSIGNED = {torch.uint16: "UInt16", torch.uint32: "UInt32", torch.uint64: "UInt64"}
OF_UNSIGNED = {
    *(
        "empty",
        "zeros",
        "empty_like",
        "zeros_like",
        "new_empty",
        "clone",
        "contiguous",
        "copy_",
        "fill_",
        "zero_",
        "to",
        "type",
    ),
    *(
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "expand",
        "permute",
        "transpose",
        "narrow",
        "select",
    ),
    *("unbind", "split", "chunk", "detach", "as_subclass", "eq", "ne", "__eq__", "__ne__", "cpu", "cuda"),
    *(
        "size",
        "dim",
        "numel",
        "stride",
        "data_ptr",
        "is_contiguous",
        "untyped_storage",
        "storage_offset",
        "element_size",
        "item",
    ),
    *("tolist", "__len__", "__repr__", "record_stream", "__iter__", "is_floating_point", "ndimension", "__hash__"),
}
ABSENT = {"histogram", "histogramdd"}
REDUCED = {"sum", "mean", "prod", "std", "var", "nansum", "nanmean", "norm", "logsumexp", "softmax", "cumprod", "trace"}
FUNCTIONS = {
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh"),
    *("cosh", "tanh", "sigmoid", "erf", "erfc", "lgamma", "rsqrt", "hypot", "xlogy", "arctan2", "arctan", "quantile"),
}
FUSED = {"addcmul", "addcdiv", "lerp", "addmm", "mm", "matmul", "__matmul__", "bmm", "einsum", "dot", "mv", "baddbmm"}
DIVIDED = {"div", "div_", "true_divide", "true_divide_", "__truediv__", "__itruediv__", "divide", "divide_"}
POWERS = {"pow", "pow_", "__pow__", "__ipow__", "float_power"}
ADDED = {"index_add", "index_add_", "scatter_add", "scatter_add_"}
REDUCED_INTO = {"index_reduce_", "scatter_reduce", "scatter_reduce_"}


def refuse(name: str, args: Any, kwargs: Any) -> None:
    """Raise what torch would on CUDA, or AssertionError for what gives other bits from run to run."""
    x = args[0] if args else None
    for tensor in args:
        if isinstance(tensor, torch.Tensor) and tensor.dtype in UNSIGNED and name not in OF_UNSIGNED:
            if name in ("__getitem__", "__setitem__") and not picked(args[1]):
                continue
            operator = {"__getitem__": "index_cuda", "__setitem__": "index_put"}.get(name, f"{name.strip('_')}_cuda")
            raise NotImplementedError(f"\"{operator}\" not implemented for '{UNSIGNED[tensor.dtype]}'")
    if isinstance(x, list | tuple) and any(isinstance(t, torch.Tensor) and t.dtype in UNSIGNED for t in x):
        raise NotImplementedError(f"\"{name}_cuda\" not implemented for 'UInt16'")
    if name in ABSENT:
        raise NotImplementedError(f"Could not run 'aten::{name}' with arguments from the 'CUDA' backend")
    if not isinstance(x, torch.Tensor):
        return
    floating = x.is_floating_point()
    assert not (floating and name in REDUCED_INTO), f"{name}: floats are added in no order on CUDA"
    weights = kwargs.get("weights", args[1] if name == "bincount" and len(args) > 1 else None)
    assert name != "bincount" or weights is None, "bincount: weights are added in no order on CUDA"
    number = name in ("__floordiv__", "floor_divide") and len(args) > 1 and not isinstance(args[1], torch.Tensor)
    assert not (floating and number), f"{name}: a float tensor is not floor-divided by a number as on a CPU"
    if name in ("scatter", "scatter_") and len(args) > 2 and isinstance(args[2], torch.Tensor):
        once(name, args[2], args[3] if len(args) > 3 else kwargs.get("src"), int(args[1]))
    if name in ("__setitem__", "index_put_", "index_copy_"):
        index, values = (args[1], args[2]) if name == "__setitem__" else (args[-2], args[-1])
        index = index[0] if isinstance(index, tuple | list) and len(index) == 1 else index
        if isinstance(index, torch.Tensor) and index.dtype != torch.bool and index.dim() == 1:
            once(name, index, values, 0)


def picked(index: Any) -> bool:
    """Whether an index gathers, as lists and tensors do, and is not a view."""
    return any(
        isinstance(i, list) or (isinstance(i, torch.Tensor) and (i.dim() > 0 or i.dtype == torch.bool))
        for i in (index if isinstance(index, tuple) else (index,))
    )


def once(name: str, index: torch.Tensor, values: Any, dim: int) -> None:
    if not isinstance(values, torch.Tensor) or values.numel() < 2:
        return
    plain = index.as_subclass(torch.Tensor)
    places = plain.reshape(-1) if plain.dim() == 1 else plain.movedim(dim, 0).reshape(plain.shape[dim], -1)
    if places.dim() == 1:
        places = places[:, None]
    ordered = places.sort(0).values
    assert not (ordered[1:] == ordered[:-1]).any(), f"{name}: a place is written twice, and holds either value on CUDA"


def compute(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The operator's result with CUDA's bits; called where no override of torch's functions is active."""
    x = args[0] if args else None
    if not isinstance(x, torch.Tensor):
        return func(*args, **kwargs)
    if name in ("sort", "argsort", "msort") and not kwargs.get("stable"):
        return sorted_last_first(name, x.as_subclass(torch.Tensor), args[1:], kwargs, func)
    number = args[1] if len(args) > 1 else kwargs.get("other")
    scalar = isinstance(number, int | float) or (
        isinstance(number, torch.Tensor) and number.dim() == 0 and not on_cuda(number)
    )
    if (
        name in DIVIDED
        and scalar
        and kwargs.get("rounding_mode") is None
        and (x.is_floating_point() or not name.endswith("_"))
    ):
        kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        inverse = torch.ones((), dtype=kind) / torch.as_tensor(number, dtype=kind)
        if name in ("div_", "true_divide_", "__itruediv__", "divide_"):
            return x.mul_(inverse)
        return x.to(kind) * inverse
    if not x.is_floating_point() and kwargs.get("dtype") not in (torch.float32, torch.float64):
        return func(*args, **kwargs)
    if name == "cumsum":
        dim = args[1] if len(args) > 1 else kwargs["dim"]
        return tree_scan(x.as_subclass(torch.Tensor).to(kwargs.get("dtype") or x.dtype).movedim(dim, -1)).movedim(-1, dim)
    if name in ADDED:  # whole numbers stand any order
        dim, index, source = args[1:4]
        along = () if index.dim() == 0 else (0 if index.dim() == 1 and name.startswith("index") else dim,)
        return func(x, dim, index.flip(along), source.flip(dim), **kwargs)
    if name in ("sum", "mean", "prod"):
        return by_halves(name, x.as_subclass(torch.Tensor), *args[1:], **kwargs)
    if name in REDUCED:
        return off(func(*args, **kwargs))
    fused = name in FUSED or (name in ("add", "sub", "add_", "sub_") and kwargs.get("alpha", 1) != 1)
    if name in FUNCTIONS or fused or (name in POWERS and number not in (1, 2)):
        result = func(*args, **kwargs)
        return result.copy_(off(result)) if name.endswith("_") and not name.endswith("__") else off(result)
    return func(*args, **kwargs)


def on_cuda(tensor: torch.Tensor) -> bool:
    return type(tensor).__name__ == "CudaTensor"


def off(x: torch.Tensor) -> torch.Tensor:
    """One unit in the last place more, but for whole numbers, which every library gets right."""
    return torch.where(x == x.round(), x, torch.nextafter(x, torch.full_like(x, torch.inf)))


def tree_scan(x: torch.Tensor) -> torch.Tensor:
    """Running sums along the last axis by pairs, pairs of pairs, and so on."""
    n = x.shape[-1]
    if n < 2:
        return x.clone()
    pairs = tree_scan(x[..., 0 : n - n % 2 : 2] + x[..., 1::2])
    out = torch.empty_like(x)
    out[..., 1::2] = pairs
    out[..., 0] = x[..., 0]
    out[..., 2::2] = pairs[..., : (n - 1) // 2] + x[..., 2::2]
    return out


def by_halves(name: str, x: torch.Tensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> torch.Tensor:
    """A sum, mean or product as a tree: the first half with the second, and so on."""
    dims = [d % x.dim() for d in ([dim] if isinstance(dim, int) else dim or range(x.dim()))]
    kept = [d for d in range(x.dim()) if d not in dims]
    rows = x.to(dtype or x.dtype).permute(*kept, *dims).reshape(*(x.shape[d] for d in kept), -1)
    n = rows.shape[-1]
    if n == 0:
        return getattr(torch, name)(x, dims, keepdim) if name != "prod" else x.prod(dims[0], keepdim)
    while rows.shape[-1] > 1:
        half, odd = divmod(rows.shape[-1], 2)
        first, second = rows[..., :half], rows[..., half : 2 * half]
        rows = torch.cat([first * second if name == "prod" else first + second, rows[..., 2 * half :][..., :odd]], -1)
    output = rows[..., 0] / n if name == "mean" else rows[..., 0]
    return output.reshape([1 if d in dims else x.shape[d] for d in range(x.dim())]) if keepdim else output


def sorted_last_first(name: str, x: torch.Tensor, rest: Any, kwargs: Any, func: Callable[..., Any]) -> Any:
    dim = kwargs.get("dim", rest[0] if rest and not isinstance(rest[0], bool) else -1)
    turned = x.flip(dim)
    if name == "msort":
        return func(x, *rest, **kwargs)
    kwargs = {**kwargs, "stable": True}
    if name == "argsort":
        return x.shape[dim] - 1 - torch.argsort(turned, **{"dim": dim, **kwargs}) if x.dim() else func(x)
    result = torch.sort(turned, **{"dim": dim, **kwargs})
    return type(result)((result.values, x.shape[dim] - 1 - result.indices)) if x.dim() else result
