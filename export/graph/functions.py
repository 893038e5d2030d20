"""The token pass as ONNX functions of the domain `dovit`: nodes that carry their own definition.

ONNX Runtime executes the bodies below; TensorRT takes the plugin that a node's attributes name (PLUGIN). They say the same as
`dovit.export.model.token_pass`, which defines them; sizes are named there. Everything that decides or accumulates is
float32, whatever the tokens are.
"""

from __future__ import annotations

from functools import cache

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

# keep [B, K] stays and is compacted; the rest goes to full, stopped_sum [B, E] float32 and stopped_count [1] int64;
# class token ← ½ (class token + mean of all stopped) (8). The sum is a product with a row of ones: ONNX Runtime's ReduceSum
# over this axis takes ten times as long.
_GATHER = """
TokenGather <prefixMERGE, PLUGIN> (tokens, index, full, stopped_sum, stopped_count, keep)
  => (new_tokens, new_index, new_full, new_sum, new_count)
{
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  last = Constant <value = int64[1] {-1}> ()
  end = Constant <value = int64[1] {9223372036854775807}> ()
  scalar = Constant <value_int: int = @prefix> ()
  begin = Unsqueeze (scalar, zero)
  class_end = Min (begin, one)
  class_token = Slice (tokens, zero, class_end, one)
  other_prefix = Slice (tokens, class_end, begin, one)
  patches = Slice (tokens, begin, end, one)
  where = Cast <to = 7> (keep)

  where3 = Unsqueeze (where, last)
  kept = GatherND <batch_dims = 1> (patches, where3)
  new_index = GatherElements <axis = 1> (index, where)
  new_full = dovit.TokenReconstruct <prefix: int = @prefix> (full, tokens, index)

SUM
  had = Shape <start = 1, end = 2> (index)
  have = Shape <start = 1, end = 2> (keep)
  fewer = Sub (had, have)
  new_count = Add (stopped_count, fewer)

CLASS
  new_tokens = Concat <axis = 1> (new_class, other_prefix, kept)
}
"""

# What stands for SUM and CLASS above: the sum of the stopped tokens, and the class token (8).
_MERGING = (
    """
  index_shape = Shape (index)
  every = ConstantOfShape <value = bool[1] {1}> (index_shape)
  keep_shape = Shape (where)
  none = ConstantOfShape <value = bool[1] {0}> (keep_shape)
  stops = ScatterElements <axis = 1> (every, where, none)
  stops3 = Unsqueeze (stops, last)
  patches32 = Cast <to = 1> (patches)
  nothing = Constant <value = float[1] {0}> ()
  stopping = Where (stops3, patches32, nothing)
  row = Unsqueeze (stops, one)
  ones = Cast <to = 1> (row)
  sum3 = MatMul (ones, stopping)
  sum = Squeeze (sum3, one)
  new_sum = Add (stopped_sum, sum)
""",
    """
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
""",
)
_WITHOUT_MERGING = "  new_sum = Identity (stopped_sum)", "  new_class = Identity (class_token)"


@cache
def token_pass_functions(merge: bool = True) -> tuple[onnx.FunctionProto, ...]:
    """TokenDecide, TokenReconstruct and TokenGather, in an order in which each is defined before it is used.

    Without `merge` TokenGather has an attribute of that name, which its nodes set to 0: by it the plugin knows."""
    new_sum, new_class = _MERGING if merge else _WITHOUT_MERGING
    gather = _GATHER.replace("MERGE", "" if merge else ", merge").replace("SUM", new_sum).replace("CLASS", new_class)
    plugin = ", ".join(f'{name}: string = "{value}"' for name, value in PLUGIN_ATTRIBUTES.items())
    header = f'<domain: "{OPERATOR_DOMAIN}", opset_import: ["" : {OPSET}, "{OPERATOR_DOMAIN}" : {DOMAIN_VERSION}]>\n'
    return tuple(
        onnx.parser.parse_function(header + text.replace("PLUGIN", plugin)) for text in (_DECIDE, _RECONSTRUCT, gather)
    )


def functions_of(graph: gs.Graph) -> tuple[onnx.FunctionProto, ...]:
    """Those that the nodes of `graph` call: its gathers merge or do not."""
    gathers = [node for node in graph.nodes if node.op == "TokenGather"]
    return token_pass_functions(merge=all(node.attrs.get("merge", 1) for node in gathers))
