"""Names of CuPy that the stand-in has, too: its functions are made from these tables."""

UFUNCS = (
    "abs", "absolute", "add", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cos", "divide", "equal", "exp", "exp2",
    "expm1", "floor", "floor_divide", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "less", "less_equal",
    "log", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply",
    "negative", "nextafter", "not_equal", "positive", "power", "reciprocal", "remainder", "rint", "sign", "sin", "sqrt",
    "square", "subtract", "tan", "tanh", "true_divide", "trunc",
)  # fmt: skip

# Functions that take arrays of this kind, and numbers, and give arrays of this kind.
FUNCTIONS = (
    "all", "any", "argmax", "argmin", "argsort", "broadcast_to", "clip", "concatenate", "copy", "count_nonzero", "cumprod",
    "cumsum", "diagonal", "empty_like", "expand_dims", "flip", "full_like", "matmul", "max", "mean", "min", "moveaxis",
    "ones_like", "outer", "prod", "repeat", "reshape", "roll", "searchsorted", "sort", "split", "squeeze", "stack", "std",
    "sum", "swapaxes", "take", "take_along_axis", "tile", "transpose", "tril", "triu", "var", "where", "zeros_like",
)  # fmt: skip

WAITING = ("argwhere", "flatnonzero", "nonzero", "unique")  # functions whose result's size only the device knows
MAKERS = ("arange", "eye", "full", "linspace", "ones", "tri", "zeros")  # functions that make arrays from numbers
FACTS = ("can_cast", "ndim", "result_type", "shape", "size")  # functions of types and shapes: no numbers are looked at
LINALG = ("cholesky", "det", "eigh", "inv", "norm", "qr", "slogdet", "solve", "svd")

METHODS = (
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum", "diagonal", "fill", "flatten",
    "max", "mean", "min", "prod", "ravel", "repeat", "reshape", "searchsorted", "squeeze", "std", "sum", "swapaxes", "take",
    "transpose", "var", "view",
)  # fmt: skip

MANY = 8  # arrays; CuPy joins more than these by one kernel, for which it copies their addresses from the host

COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul")
