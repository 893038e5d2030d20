"""The token pass as ONNX functions of the domain `dovit`: nodes that carry their own definition.

ONNX Runtime executes the bodies below; TensorRT takes the plugin that a node's attributes name (PLUGIN). They say the same as
`dovit.export.model.token_pass`, which defines them; sizes are named there. Everything that decides or accumulates is
float32, whatever the tokens are.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import onnx
import onnx.parser
import onnx_graphsurgeon as gs

from dovit.runtime.bundle.manifest import OPERATOR_DOMAIN, PLUGIN_ATTRIBUTES

DOMAIN_VERSION = 1
OPSET = 20

# keep [B, K] int32, ascending, into the M tokens. confidence [B, M] float32; threshold [] float32; capacities [k] int64.
# TopK gives equal values in order of index, so ties fill by lower index; NaN > ξ is false, so a NaN keeps. OpenVINO's TopK
# takes no K of 0, so where nothing is kept one token is chosen and then cut off.
_DECIDE = """
TokenDecide <PLUGIN> (confidence, threshold, capacities) => (keep)
{
  one = Constant <value = int64[1] {1}> ()
  stops = Greater (confidence, threshold)
  keeps = Not (stops)
  ones = Cast <to = 7> (keeps)
  counts = ReduceSum <keepdims = 0> (ones, one)
  largest = ReduceMax <keepdims = 1> (counts)
  holds = GreaterOrEqual (capacities, largest)
  never = Constant <value = int64[1] {9223372036854775807}> ()
  candidates = Where (holds, capacities, never)
  capacity = ReduceMin <keepdims = 1> (candidates)
  first = Constant <value = float[1] {-inf}> ()
  rank = Where (stops, confidence, first)
  some = Max (capacity, one)
  ranks, chosen = TopK <axis = 1, largest = 0, sorted = 1> (rank, some)
  ascending, places = TopK <axis = 1, largest = 0, sorted = 1> (chosen, some)
  begin = Constant <value = int64[1] {0}> ()
  held = Slice (ascending, begin, capacity, one)
  keep = Cast <to = 6> (held)
}
"""

# new_full [B, N, E]: full with tokens [B, P+M, E] written in at index [B, M] int32, prefix tokens dropped.
_RECONSTRUCT = """
TokenReconstruct <prefix, PLUGIN> (full, tokens, index) => (new_full)
{
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  last = Constant <value = int64[1] {-1}> ()
  end = Constant <value = int64[1] {9223372036854775807}> ()
  scalar = Constant <value_int: int = @prefix> ()
  begin = Unsqueeze (scalar, zero)
  patches = Slice (tokens, begin, end, one)
  where = Cast <to = 7> (index)
  shape = Shape (where)
  batch = Shape <start = 0, end = 1> (where)
  count = Squeeze (batch, zero)
  from = Squeeze (zero, zero)
  step = Squeeze (one, zero)
  images = Range (from, count, step)
  column = Unsqueeze (images, one)
  image = Expand (column, shape)
  image3 = Unsqueeze (image, last)
  where3 = Unsqueeze (where, last)
  places = Concat <axis = 2> (image3, where3)
  new_full = ScatterND (full, places, patches)
}
"""

# keep [B, K] stays and is compacted; the rest goes to full, and is merged where it is: into stopped_sum [B, E] float32 and
# stopped_count [1] int64 and with them into the class token, or into the merged tokens of cells.
_GATHER = """
TokenGather <prefixATTRIBUTES, PLUGIN> (tokens, index, full, stopped_sum, stopped_count, keep)
  => (new_tokens, new_index, new_full, new_sum, new_count)
{
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  last = Constant <value = int64[1] {-1}> ()
  end = Constant <value = int64[1] {9223372036854775807}> ()
  scalar = Constant <value_int: int = @prefix> ()
  begin = Unsqueeze (scalar, zero)
  prefix_tokens = Slice (tokens, zero, begin, one)
  patches = Slice (tokens, begin, end, one)
  where = Cast <to = 7> (keep)

  where3 = Unsqueeze (where, last)
  kept = GatherND <batch_dims = 1> (patches, where3)
  new_index = GatherElements <axis = 1> (index, where)
  new_full = dovit.TokenReconstruct <prefix: int = @prefix> (full, tokens, index)

STOPPING
  had = Shape <start = 1, end = 2> (index)
  have = Shape <start = 1, end = 2> (keep)
  fewer = Sub (had, have)
  new_count = Add (stopped_count, fewer)

MERGED
  new_tokens = Concat <axis = 1> (merged_prefix, kept)
}
"""

# What stands for STOPPING above where tokens are merged: the stopping tokens [B, M, E] float32, others as zeros.
_STOPPING = """
  index_shape = Shape (index)
  every = ConstantOfShape <value = bool[1] {1}> (index_shape)
  keep_shape = Shape (where)
  none = ConstantOfShape <value = bool[1] {0}> (keep_shape)
  stops = ScatterElements <axis = 1> (every, where, none)
  stops3 = Unsqueeze (stops, last)
  patches32 = Cast <to = 1> (patches)
  nothing = Constant <value = float[1] {0}> ()
  stopping = Where (stops3, patches32, nothing)
"""

# class token ← ½ (class token + mean of all stopped) (8). The sum is a product with a row of ones: ONNX Runtime's ReduceSum
# over this axis takes ten times as long.
_INTO_CLASS_TOKEN = (
    _STOPPING
    + """
  row = Unsqueeze (stops, one)
  ones = Cast <to = 1> (row)
  sum3 = MatMul (ones, stopping)
  sum = Squeeze (sum3, one)
  new_sum = Add (stopped_sum, sum)
""",
    """
  class_end = Min (begin, one)
  class_token = Slice (prefix_tokens, zero, class_end, one)
  other_prefix = Slice (prefix_tokens, class_end, begin, one)
  at_least_one = Max (new_count, one)
  divisor = Cast <to = 1> (at_least_one)
  mean = Div (new_sum, divisor)
  mean3 = Unsqueeze (mean, one)
  class32 = Cast <to = 1> (class_token)
  both = Add (class32, mean3)
  half = Constant <value = float[1] {0.5}> ()
  merged = Mul (both, half)
  any = Greater (new_count, zero)
  new_class32 = Where (any, merged, class32)
  new_class = CastLike (new_class32, tokens)
  merged_prefix = Concat <axis = 1> (new_class, other_prefix)
""",
)

# R ← (n R + sum of the cell's stopping tokens) / (n + their number), n those that had stopped: the patches of the cell, less
# those that were left. Patch p lies in row p / columns; cells are cell_side rows and columns large, and smaller at the edge.
_INTO_CELLS = (
    _STOPPING
    + """
  new_sum = Identity (stopped_sum)
  columns0 = Constant <value_int: int = @columns> ()
  columns = Unsqueeze (columns0, zero)
  side0 = Constant <value_int: int = @cell_side> ()
  side = Unsqueeze (side0, zero)
  positions = Shape <start = 1, end = 2> (full)
  rows = Div (positions, columns)
  less = Sub (side, one)
  rows_up = Add (rows, less)
  down = Div (rows_up, side)
  columns_up = Add (columns, less)
  across = Div (columns_up, side)
  cells = Mul (down, across)

  index64 = Cast <to = 7> (index)
  row = Div (index64, columns)
  column = Mod (index64, columns)
  cell_row = Div (row, side)
  cell_column = Div (column, side)
  rows_before = Mul (cell_row, across)
  cell = Add (rows_before, cell_column)
  cell3 = Unsqueeze (cell, one)
  from = Squeeze (zero, zero)
  step = Squeeze (one, zero)
  cells0 = Squeeze (cells, zero)
  numbers = Range (from, cells0, step)
  numbers2 = Unsqueeze (numbers, one)
  contains = Equal (cell3, numbers2)
  lies = Cast <to = 1> (contains)
""",
    """
  down0 = Squeeze (down, zero)
  cell_rows = Range (from, down0, step)
  first_rows = Mul (cell_rows, side)
  rows_left = Sub (rows, first_rows)
  heights = Min (rows_left, side)
  across0 = Squeeze (across, zero)
  cell_columns = Range (from, across0, step)
  first_columns = Mul (cell_columns, side)
  columns_left = Sub (columns, first_columns)
  widths = Min (columns_left, side)
  heights2 = Unsqueeze (heights, one)
  sizes2 = Mul (heights2, widths)
  flat = Concat <axis = 0> (cells, one)
  sizes64 = Reshape (sizes2, flat)
  sizes = Cast <to = 1> (sizes64)

  left32 = Cast <to = 1> (every)
  left3 = Unsqueeze (left32, last)
  left = MatMul (lies, left3)
  before = Sub (sizes, left)
  stops32 = Cast <to = 1> (stops3)
  fresh = MatMul (lies, stops32)
  after = Add (before, fresh)
  least = Constant <value = float[1] {1}> ()
  divisor = Max (after, least)
  cells_begin = Sub (begin, cells)
  outer_prefix = Slice (prefix_tokens, zero, cells_begin, one)
  old = Slice (prefix_tokens, cells_begin, begin, one)
  old32 = Cast <to = 1> (old)
  weighted = Mul (before, old32)
  had_stopped = Greater (before, nothing)
  earlier = Where (had_stopped, weighted, nothing)
  sums = MatMul (lies, stopping)
  all = Add (earlier, sums)
  new32 = Div (all, divisor)
  new_merged = CastLike (new32, tokens)
  merged_prefix = Concat <axis = 1> (outer_prefix, new_merged)
""",
)
_NOT_MERGED = "  new_sum = Identity (stopped_sum)", "  merged_prefix = Identity (prefix_tokens)"
Merging = Literal["class token", "cells", "none"]
_MERGING: dict[Merging, tuple[tuple[str, str], str]] = {
    "class token": (_INTO_CLASS_TOKEN, ""),
    "cells": (_INTO_CELLS, ", merge, cell_side, columns"),
    "none": (_NOT_MERGED, ", merge"),
}


@cache
def token_pass_functions(merging: Merging = "class token") -> tuple[onnx.FunctionProto, ...]:
    """TokenDecide, TokenReconstruct and TokenGather, in an order in which each is defined before it is used.

    Unless TokenGather merges into the class token, it has an attribute `merge`, which its nodes set to 0; where it merges by
    cell, `cell_side` and `columns` of the grid, both in patches. By these the plugin knows."""
    (stopping, merged), attributes = _MERGING[merging]
    gather = _GATHER.replace("ATTRIBUTES", attributes).replace("STOPPING", stopping).replace("MERGED", merged)
    plugin = ", ".join(f'{name}: string = "{value}"' for name, value in PLUGIN_ATTRIBUTES.items())
    header = f'<domain: "{OPERATOR_DOMAIN}", opset_import: ["" : {OPSET}, "{OPERATOR_DOMAIN}" : {DOMAIN_VERSION}]>\n'
    return tuple(
        onnx.parser.parse_function(header + text.replace("PLUGIN", plugin)) for text in (_DECIDE, _RECONSTRUCT, gather)
    )


def functions_of(graph: gs.Graph) -> tuple[onnx.FunctionProto, ...]:
    """Those that the nodes of `graph` call; its gathers all merge in one way."""
    gathers = [node for node in graph.nodes if node.op == "TokenGather"]
    if any("cell_side" in node.attrs for node in gathers):
        return token_pass_functions("cells")
    return token_pass_functions("class token" if all(node.attrs.get("merge", 1) for node in gathers) else "none")
